"""What holds for the utilization of anything, and the times to try it over."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from telemetryd.derived.steps import GAP_INTERVALS

# A machine with other work to do is no reason to fail.
untimed = settings(deadline=None)

INTERVAL = 1.0
Values = dict[str, float]

# Time is drawn in hundredths of a second, the unit of the kernel's CPU times.
ticks = st.integers(10, int(GAP_INTERVALS * INTERVAL * 100))
gaps = st.integers(int(GAP_INTERVALS * INTERVAL * 100) + 1, 100_000)
shares = st.floats(0, 1)
# Most intervals are as they should be; some are gaps, in which nobody looked.
intervals = st.one_of(ticks, ticks, ticks, gaps)


def account_of(values: Values, resource: str, device: str = "all") -> tuple[float, float]:
    """The integral and the observed time."""
    labels = f'{{resource="{resource}",device="{device}"}}'
    return (
        values[f"telemetryd_utilization_seconds_total{labels}"],
        values[f"telemetryd_utilization_observed_seconds_total{labels}"],
    )


def ratio_of(values: Values, resource: str, device: str = "all") -> float | None:
    return values.get(f'telemetryd_utilization_ratio{{resource="{resource}",device="{device}"}}')


def assert_mean_between_any_scrapes(
    accounts: Sequence[tuple[float, float]], truth: Sequence[tuple[float, float]]
) -> None:
    """`accounts` are the integral and the observed time at each sample; `truth` has, for each
    interval between two of them, the true seconds of use and the seconds in which somebody
    looked."""
    for first, last in itertools.combinations(range(len(accounts)), 2):
        integral = accounts[last][0] - accounts[first][0]
        observed = accounts[last][1] - accounts[first][1]
        used = sum(used for used, _ in truth[first:last])
        looked = sum(looked for _, looked in truth[first:last])
        assert observed == pytest.approx(looked, abs=1e-6)
        if looked:
            assert integral / observed == pytest.approx(used / looked, abs=1e-6)


def assert_lawful(before: Values, now: Values) -> None:
    """A ratio is in [0, 1]; no counter falls as long as it is there; nobody uses more time than
    was observed."""
    for name, value in now.items():
        if "_ratio" in name:
            assert 0 <= value <= 1, name
        else:
            assert name not in before or value >= before[name], name
        if name.startswith("telemetryd_utilization_seconds_total"):
            observed = now[name.replace("seconds_total", "observed_seconds_total")]
            assert value <= observed * (1 + 1e-12), name


def assert_nothing_derived(before: Values, now: Values) -> None:
    """No ratio, and no counter moved."""
    for name, value in now.items():
        assert "_utilization_ratio" not in name
        if name.endswith("_total"):
            assert value == before.get(name, 0)
