"""The built-in collectors, derivations and exporters, and those of other packages.

To add a collector: write its module in collectors/ and name it in COLLECTORS. A collector or
exporter of another package is found by its entry point, in the group `telemetryd.collectors` or
`telemetryd.exporters`, and is loaded only when the configuration names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from telemetryd.collector import Collector, CollectorConfig
from telemetryd.derivation import Derivation
from telemetryd.errors import Broken
from telemetryd.exporter import ExporterConfig, PushExporter
from telemetryd.host import Host

# In the order in which they are sampled and shown.
COLLECTORS = {
    "cpu": "telemetryd.collectors.cpu:Cpu",
    "memory": "telemetryd.collectors.memory:Memory",
    "pressure": "telemetryd.collectors.pressure:Pressure",
    "disk": "telemetryd.collectors.disk:Disk",
    "filesystem": "telemetryd.collectors.filesystem:Filesystem",
    "network": "telemetryd.collectors.network:Network",
    "tcp": "telemetryd.collectors.tcp:Tcp",
    "thermal": "telemetryd.collectors.thermal:Thermal",
    "rapl": "telemetryd.collectors.rapl:Rapl",
    "gpu_nvidia": "telemetryd.collectors.gpu_nvidia:GpuNvidia",
    "gpu_amd": "telemetryd.collectors.gpu_amd:GpuAmd",
    "gpu_intel": "telemetryd.collectors.gpu_intel:GpuIntel",
    "hwmon_power": "telemetryd.collectors.hwmon_power:HwmonPower",
    "ipmi": "telemetryd.collectors.ipmi:Ipmi",
    "redfish": "telemetryd.collectors.redfish:Redfish",
    "owners": "telemetryd.collectors.owners:Owners",
    "system": "telemetryd.collectors.system:System",
    "textfile": "telemetryd.collectors.textfile:Textfile",
    "self": "telemetryd.collectors.self:Self",
}

DERIVATIONS = (
    "telemetryd.derived.cpu:CpuUtilization",
    "telemetryd.derived.memory:MemoryUtilization",
    "telemetryd.derived.disk:DiskUtilization",
    "telemetryd.derived.filesystem:FilesystemUtilization",
    "telemetryd.derived.bandwidth:BandwidthUtilization",
    "telemetryd.derived.energy:MeterEnergy",
    "telemetryd.derived.balance.balance:EnergyBalance",
    "telemetryd.derived.gpu_utilization:GpuUtilization",
    "telemetryd.derived.gpu_bandwidth:GpuBandwidth",
    "telemetryd.derived.gpu_peaks:PeakFlops",
    "telemetryd.derived.gpu_held_idle:HeldIdle",
    "telemetryd.derived.gpu_energy_drift:GpuEnergyDrift",
)

PUSH_EXPORTERS = {
    "influxdb": "telemetryd.exporters.influxdb:InfluxDB",
    "remote_write": "telemetryd.exporters.remote_write:RemoteWrite",
}

# The one exporter that is asked for series instead of sending them.
PROMETHEUS = "prometheus"

_REPAIR = "repair or reinstall the package that provides it"


def _load(path: str) -> object:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def _outside(group: str) -> dict[str, str]:
    from importlib.metadata import entry_points  # noqa: PLC0415  (costs memory, rarely needed)

    return {entry.name: entry.value for entry in entry_points(group=group)}


def _find(name: str, built_in: dict[str, str], group: str) -> object:
    path = built_in.get(name)
    if path is not None:
        return _load(path)
    outside = _outside(group)
    if name not in outside:
        raise KeyError(name)
    try:
        return _load(outside[name])
    except (Exception, SystemExit) as error:  # the package is not ours: whatever it raises
        raise Broken(
            f"{group} {name} cannot be imported from {outside[name]}: {error!r}",
            _REPAIR,
        ) from error


def collector_class(name: str) -> type[Collector]:
    """The collector of this name. Raises KeyError if there is none, Broken if it is unfit."""
    found = _find(name, COLLECTORS, "telemetryd.collectors")
    if not (isinstance(found, type) and issubclass(found, Collector)):
        raise Broken(f"{name} is {found!r}, not a Collector", "repair its entry point")
    if not (isinstance(found.Config, type) and issubclass(found.Config, CollectorConfig)):
        raise Broken(f"{name}.Config is {found.Config!r}, not a CollectorConfig", _REPAIR)
    return found


def open_collector(name: str, config: CollectorConfig, host: Host) -> Collector:
    """The collector of this name, opened. Raises whatever it raises."""
    collector = collector_class(name)(config, host)
    # A plugin may have left out super().__init__, or loosened what keeps a lane ticking.
    CollectorConfig(interval=collector.config.interval, max_series=collector.config.max_series)
    return collector


def push_exporter_class(name: str) -> type[PushExporter]:
    """The exporter of this name. Raises KeyError if there is none, Broken if it is unfit."""
    found = _find(name, PUSH_EXPORTERS, "telemetryd.exporters")
    if not (isinstance(found, type) and issubclass(found, PushExporter)):
        raise Broken(f"{name} is {found!r}, not a PushExporter", "repair its entry point")
    if not (isinstance(found.Config, type) and issubclass(found.Config, ExporterConfig)):
        raise Broken(f"{name}.Config is {found.Config!r}, not an ExporterConfig", _REPAIR)
    return found


def derivation_classes() -> Iterable[type[Derivation]]:
    for path in DERIVATIONS:
        found = _load(path)
        assert isinstance(found, type)
        assert issubclass(found, Derivation)
        yield found


def collector_names() -> list[str]:
    """Every name that may stand under [collectors]."""
    return [*COLLECTORS, *_outside("telemetryd.collectors")]


def exporter_names() -> list[str]:
    """Every name that may stand under [exporters]."""
    return [PROMETHEUS, *PUSH_EXPORTERS, *_outside("telemetryd.exporters")]
