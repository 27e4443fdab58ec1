"""Expressions over the GPUs that the dashboard's variables choose; see promql.py."""

from __future__ import annotations

from promql import LABELS, WINDOW, chosen

_NODES = ('job="$job"', 'instance=~"$instance"')
# The value that the variable `gpu` has for all: GPUs, not their MIG instances ("0/3/0").
ALL_GPUS = "[^/]+"
WHOLE = "=~$gpu"
INSTANCES = "=~$gpu/.+"
_BOTH = "=~$gpu(/.*)?"

# The resources that say how busy a GPU is, the better one first.
_ACTIVITY = ("gpu_sm", "gpu")
# What a GPU is called in a legend: by its own series, and by those that call it a device.
GPU = "{{instance}} GPU {{gpu}}"
DEVICE = "{{instance}} GPU {{device}}"


def series(name: str, **labels: str) -> str:
    """The series of a metric on the GPUs that are chosen and their MIG instances, unless `gpu` or
    `device` says otherwise. Raises ValueError as promql.series does."""
    own = next((one for one in ("gpu", "device") if one in LABELS.get(name, ())), None)
    return chosen(_NODES, name, **({own: _BOTH} if own else {}) | labels)


def rate(name: str, window: str = WINDOW, **labels: str) -> str:
    """The increase a second of a counter."""
    return f"rate({series(name, **labels)}[{window}])"


def increase(name: str, window: str = WINDOW, **labels: str) -> str:
    """The increase of a counter over the window."""
    return f"increase({series(name, **labels)}[{window}])"


def mean(name: str, window: str = WINDOW, **labels: str) -> str:
    """The mean of a gauge that has no integral beside it, over the scrapes of the window."""
    return f"avg_over_time({series(name, **labels)}[{window}])"


def used(resource: str, window: str = WINDOW, device: str = _BOTH) -> str:
    """The mean utilization of a resource over the window: the integral by the time observed."""
    return f"{_integral(resource, window, device)} / {_observed(resource, window, device)}"


def activity(window: str = WINDOW, device: str = _BOTH) -> str:
    """How busy a GPU was: its multiprocessors where it tells, else the time with a kernel."""
    return _sm_or_gpu(*(used(one, window, device) for one in _ACTIVITY))


def unused_seconds(window: str = WINDOW, device: str = _BOTH) -> str:
    """Seconds of a whole GPU that nobody used, of those observed."""
    return _sm_or_gpu(
        *(
            f"{_observed(one, window, device)} - {_integral(one, window, device)}"
            for one in _ACTIVITY
        )
    )


def _sm_or_gpu(of_sm: str, of_gpu: str) -> str:
    return f"({of_sm} or on (job, instance, device) {of_gpu})"


def _integral(resource: str, window: str, device: str) -> str:
    name = "telemetryd_utilization_seconds_total"
    return increase(name, window, resource=resource, device=device)


def _observed(resource: str, window: str, device: str) -> str:
    name = "telemetryd_utilization_observed_seconds_total"
    return increase(name, window, resource=resource, device=device)


def carried(link: str, window: str = WINDOW) -> str:
    """Bytes a second of a link, each direction apart."""
    return rate("telemetryd_bandwidth_bytes_total", window, link=link)


def link_used(link: str, window: str = WINDOW) -> str:
    """The mean share of a link's capacity over the window, each direction apart."""
    capacity = series("telemetryd_bandwidth_capacity_bytes_per_second", link=link)
    return f"{carried(link, window)} / {capacity}"


def joules(window: str, *, a_second: bool = False) -> str:
    """Energy of each GPU over the window, or its mean power."""
    over = rate if a_second else increase
    labels = {"domain": "gpu", "boundary": "component"}
    return over("telemetryd_energy_joules_total", window, **labels)


def by_gpu(expr: str) -> str:
    """Give series that call a GPU a device the label `gpu`, so that they join with the others."""
    return f'label_replace({expr}, "gpu", "$1", "device", "(.+)")'
