"""The configuration: TOML files, then TELEMETRYD_* variables, checked by pydantic models.

Each collector's and exporter's model stands beside it; this module puts them together and turns
everything that is wrong into one ConfigError, each problem with its file, key, value and what is
allowed.
"""

from __future__ import annotations

import glob
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from telemetryd import plugins
from telemetryd.collector import CollectorConfig
from telemetryd.config_problems import Sources, closest, model_problems
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.derivation import DerivedConfig
from telemetryd.errors import Broken, ConfigError, Problem
from telemetryd.exporter import ExporterConfig
from telemetryd.host import Host, Ownership

DEFAULT_FILE = "/etc/telemetryd/telemetryd.toml"
ENV_PREFIX = "TELEMETRYD_"
# What Kubernetes tells every container of a Service that is called telemetryd.
_OF_KUBERNETES = re.compile(r"TELEMETRYD_(SERVICE_(HOST|PORT)|PORT)(_[A-Z0-9_]*)?\Z")
# Also the name of a folder.
_EXPORTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
# TASK_COMM_LEN without its end (include/linux/sched.h).
_LONGEST_COMMAND = 15
_RESERVED_LABELS = ("host", "time")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HostConfig(_Section):
    """[host]: the trees that collectors read, and whose the processes are that they find there."""

    procfs: str = Field("/proc", description="where the watched machine's procfs is mounted")
    sysfs: str = Field("/sys", description="where the watched machine's sysfs is mounted")
    rootfs: str = Field("/", description="where the watched machine's root file system is")
    slurm_steps: bool = Field(
        False,
        description='tell the steps of Slurm jobs apart: owners such as "7.0" beside job "7", of '
        "CPUs and of GPUs",
    )
    commands: tuple[str, ...] = Field(
        (),
        description='shell patterns of commands, such as ["python*"]: a process whose command (its '
        "name in /proc/PID/stat, up to 15 characters) fits one belongs to that command, "
        'owner_kind="process", and no longer to its job, pod, container or unit: CPU time, GPU '
        "share and memory, and so energy; memory of the machine is told of both. Reads "
        "/proc/PID/stat of every process, about 10 us each",
    )

    @field_validator("commands")
    @classmethod
    def _can_fit(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            if not set("*?[") & set(pattern) and len(pattern.encode()) > _LONGEST_COMMAND:
                raise ValueError(
                    f"{pattern} fits nothing: the kernel keeps {_LONGEST_COMMAND} characters of a "
                    f'name, write "{pattern[:_LONGEST_COMMAND]}"'
                )
        return value


class WebConfig(_Section):
    """[web]: the HTTP endpoint with /metrics, /-/healthy and /-/ready."""

    listen: str = Field(
        "127.0.0.1:10090",
        description='address and port, such as "0.0.0.0:10090" or "[::]:10090"; no TLS and no '
        "authentication yet, so leave it on loopback or behind a firewall",
    )

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError('write address:port, such as "127.0.0.1:10090" or "[::1]:10090"')
        return value

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


class LogConfig(_Section):
    """[log]: what goes to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least severe level that is written"
    )


SECTIONS: dict[str, type[BaseModel]] = {
    "host": HostConfig,
    "web": WebConfig,
    "log": LogConfig,
    "derived": DerivedConfig,
    "spool": SpoolConfig,
}


@dataclass(frozen=True, slots=True)
class Config:
    """A checked configuration. `collectors` has every collector that is not switched off."""

    host: HostConfig
    web: WebConfig
    log: LogConfig
    derived: DerivedConfig
    spool: SpoolConfig
    labels: dict[str, str]
    collectors: dict[str, CollectorConfig]
    exporters: dict[str, ExporterConfig]
    # The names of those that are switched off.
    exporters_off: frozenset[str] = frozenset()


def host_of(config: HostConfig) -> Host:
    """The machine that these roots show, and who owns what there."""
    ownership = Ownership(config.commands, config.slurm_steps)
    return Host(config.procfs, config.sysfs, config.rootfs, ownership=ownership)


def config_files(path: str | None) -> list[str]:
    """The files to read for `--config path`: that one, or the default if it is there; and the
    conf.d/*.toml beside it in the order of their names."""
    main = DEFAULT_FILE if path is None else path
    beside = os.path.join(glob.escape(os.path.dirname(main)), "conf.d", "*.toml")
    is_there = path is not None or os.path.exists(main)
    return [*([main] if is_there else []), *sorted(glob.glob(beside))]


def load(
    files: list[str],
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    *,
    strict: bool = False,
) -> Config:
    """Read and check `files`, overridden by TELEMETRYD_* variables, overridden by `flags`.

    `flags` is nested like the file. Raises ConfigError with every problem found, `strict` with a
    plugin that cannot be imported as well.
    """
    sources = Sources()
    problems: list[Problem] = []
    for file in files:
        try:
            with open(file, "rb") as stream:
                sources.merge(file, tomllib.load(stream))
        except OSError as error:
            problems.append(Problem(file, "", "", f"cannot be read: {error.strerror}"))
        except (ValueError, RecursionError) as error:
            problems.append(Problem(file, "", "", f"is not TOML: {error}"))
    _merge_environment(sources, os.environ if environ is None else environ)
    sources.merge("command line", flags or {})
    if problems:
        raise ConfigError(problems)
    return check(sources, strict=strict)


def _merge_environment(sources: Sources, environ: Mapping[str, str]) -> None:
    """TELEMETRYD_WEB__LISTEN is web.listen; values are TOML, or text where they are not."""
    for name in sorted(environ):
        if not name.startswith(ENV_PREFIX) or _OF_KUBERNETES.match(name):
            continue
        tree: Any = _toml_or_text(environ[name])
        for key in reversed(name[len(ENV_PREFIX) :].lower().split("__")):
            tree = {key: tree}
        sources.merge(f"environment {name}", tree)


def _toml_or_text(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # also of a number that Python finds too long
        return text
    return parsed["value"] if len(parsed) == 1 else text


def check(sources: Sources, *, strict: bool = False) -> Config:
    """Turn merged tables into a Config. Raises ConfigError.

    A plugin that cannot be imported is no reason to: it shows when it is started, like one that
    does not open. `strict` is for an operator who asks.
    """
    known = [*SECTIONS, "labels", "collectors", "exporters"]
    problems = [
        sources.problem((key,), closest(key, known)) for key in sources.tree if key not in known
    ]
    sections = {
        name: _validate(model, (name,), sources, problems) for name, model in SECTIONS.items()
    }
    labels = _check_labels(sources, problems)
    broken: list[Problem] = []
    collectors = _check_collectors(sources, problems, broken)
    exporters = _check_exporters(sources, problems, broken)
    if strict:
        problems += broken
    if problems:
        raise ConfigError(problems)
    off = frozenset(sources.table(("exporters",), [])) - exporters.keys()
    return Config(
        labels=labels, collectors=collectors, exporters=exporters, exporters_off=off, **sections
    )


def _validate(
    model: type[BaseModel], path: tuple[str, ...], sources: Sources, problems: list[Problem]
) -> Any:
    table = sources.table(path, problems)
    found = model_problems(model, table, path, sources)
    problems.extend(found)
    return None if found else model.model_validate(table)


def _validate_common(
    model: type[BaseModel], path: tuple[str, ...], sources: Sources, problems: list[Problem]
) -> Any:
    """For what cannot be imported: check what all can be told, and let the rest pass."""
    table = sources.table(path, problems)
    common = {key: value for key, value in table.items() if key in model.model_fields}
    found = model_problems(model, common, path, sources)
    problems.extend(found)
    return None if found else model.model_validate(common)


def _check_labels(sources: Sources, problems: list[Problem]) -> dict[str, str]:
    labels = sources.table(("labels",), problems)
    for name, value in labels.items():
        path = ("labels", name)
        if not name.isidentifier() or not name.isascii() or name.startswith("__"):
            problems.append(sources.problem(path, "a label name has letters, digits and _"))
        elif name in _RESERVED_LABELS:
            problems.append(sources.problem(path, "this name is taken by the daemon itself"))
        elif not isinstance(value, str) or not value:
            problems.append(sources.problem(path, "write a text that is not empty"))
    return labels


def _check_collectors(
    sources: Sources, problems: list[Problem], broken: list[Problem]
) -> dict[str, CollectorConfig]:
    tables = sources.table(("collectors",), problems)
    checked: dict[str, CollectorConfig] = {}
    for name in [*plugins.COLLECTORS, *(n for n in tables if n not in plugins.COLLECTORS)]:
        path = ("collectors", name)
        off = sources.table(path, problems).get("enabled") is False
        if off and (name in plugins.COLLECTORS or name in plugins.collector_names()):
            continue  # not even imported
        try:
            config = _validate(plugins.collector_class(name).Config, path, sources, problems)
        except KeyError:
            problems.append(sources.problem(path, closest(name, plugins.collector_names())))
            continue
        except Broken as error:
            broken.append(sources.problem(path, str(error)))
            config = _validate_common(CollectorConfig, path, sources, problems)
        if config is not None and config.enabled is not False:
            checked[name] = config
    return checked


def _check_exporters(
    sources: Sources, problems: list[Problem], broken: list[Problem]
) -> dict[str, ExporterConfig]:
    tables = sources.table(("exporters",), problems)
    checked: dict[str, ExporterConfig] = {}
    for name in dict.fromkeys([plugins.PROMETHEUS, *tables]):
        path = ("exporters", name)
        table = sources.table(path, problems)
        kind = table.get("type", name)
        if (problem := _misnamed(name, kind, sources)) is not None:
            problems.append(problem)
            continue
        if table.get("enabled") is False and kind in plugins.exporter_names():
            continue
        try:
            model = (
                ExporterConfig
                if name == plugins.PROMETHEUS
                else plugins.push_exporter_class(kind).Config
            )
            config = _validate(model, path, sources, problems)
        except KeyError:
            problems.append(_unknown_kind(path, kind, sources, has_type="type" in table))
            continue
        except Broken as error:
            broken.append(sources.problem(path, str(error)))
            config = _validate_common(ExporterConfig, path, sources, problems)
        if config is not None and config.enabled:
            checked[name] = config
    return checked


def _misnamed(name: str, kind: object, sources: Sources) -> Problem | None:
    path = ("exporters", name)
    if not _EXPORTER_NAME.match(name):
        return sources.problem(path, "a name has letters, digits, _ and -")
    if not isinstance(kind, str):
        return sources.problem((*path, "type"), "write a text")
    if (name == plugins.PROMETHEUS) != (kind == plugins.PROMETHEUS):
        own = "exporters.prometheus is what Prometheus scrapes, and the only one of its kind"
        return sources.problem((*path, "type"), f"{own}: give this one another name")
    return None


def _unknown_kind(path: tuple[str, ...], kind: str, sources: Sources, *, has_type: bool) -> Problem:
    allowed = closest(kind, plugins.exporter_names())
    if has_type:
        return sources.problem((*path, "type"), allowed.replace("no such key", "no such kind"))
    if "did you mean" not in allowed:
        allowed += '; a name of your own needs `type`, such as type = "influxdb"'
    return sources.problem(path, allowed)
