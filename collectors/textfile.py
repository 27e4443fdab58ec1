"""Metrics that site scripts leave in files, in the Prometheus text format, with the age of each.

A script writes to another name in the same folder and renames it to `*.prom`, so that no half
written file is ever read. A file is parsed again only when it has changed. Of one that cannot be
read or is not in the format nothing is published, least of all what it said before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pydantic import Field

from telemetryd.collector import Collector, CollectorConfig, Filters
from telemetryd.duration import Bytes, Seconds
from telemetryd.errors import ReadError, Unavailable, reason_of
from telemetryd.exposition import Family, Page, Sample, parse, read
from telemetryd.host import Host
from telemetryd.metric import PREFIX, Kind, Metric, Point, Unit

_SOURCE = "textfile, prometheus.io/docs/instrumenting/exposition_formats"
# A file that is written again within the clock's resolution keeps its times. So what was written
# this recently is read once more at the next sample.
_SETTLED_NS = 2_000_000_000

MTIME = Metric(
    "textfile", "mtime", Kind.GAUGE, Unit.SECONDS,
    "When each file was last written, in seconds since 1970.", "stat(2)", ("file",),
)  # fmt: skip
AGE = Metric(
    "textfile", "age", Kind.GAUGE, Unit.SECONDS,
    "Time since each file was last written; negative if its time lies ahead of the clock.",
    "stat(2)", ("file",),
)  # fmt: skip
OK = Metric(
    "textfile", "ok", Kind.GAUGE, Unit.NONE,
    "1 if everything that the file says is published, 0 if it or a part of it is refused.",
    "textfile", ("file",),
)  # fmt: skip


class TextfileConfig(CollectorConfig, Filters):
    """include and exclude are patterns of file names."""

    interval: Seconds = Field(15.0, ge=0.05, le=3600, description="time between two samples")
    directory: str = Field(
        "/var/lib/telemetryd/textfile",
        pattern="^/",
        description="folder in which scripts leave their files",
    )
    include: tuple[str, ...] = Field(
        ("*.prom",), description="shell patterns of the file names to read"
    )
    max_bytes: Bytes = Field(1 << 20, ge=1, description="a longer file is not read")


class _Stamp(NamedTuple):
    """What changes when a file does."""

    mtime_ns: int
    ctime_ns: int
    size: int
    inode: int


class _File:
    """What is known of a file. `stamp` is None while it has to be read again in any case."""

    __slots__ = ("conflicts", "page", "stamp")

    def __init__(self, stamp: _Stamp | None, page: Page) -> None:
        self.stamp = stamp
        self.page = page
        # Faults that come from what other files say.
        self.conflicts: list[ReadError] = []


class _Claim(NamedTuple):
    """Who has a name."""

    family: Family
    file: str

    @property
    def header(self) -> tuple[str, Kind, str]:
        return self.family.name, self.family.kind, self.family.help


class Textfile(Collector):
    """Raises Unavailable if the folder is not there or not readable, also when that happens
    later."""

    Config = TextfileConfig
    config: TextfileConfig
    metrics = (MTIME, AGE, OK)
    open_ended = True

    def __init__(self, config: TextfileConfig, host: Host) -> None:
        super().__init__(config, host)
        self._directory = host.root(config.directory)
        self._files: dict[str, _File] = {}
        self._metrics: dict[object, Metric] = {}
        self._points: list[Point] = []
        self._entries()

    def sample(self) -> Iterator[Point]:
        now_ns = self.host.clock.wall_ns()
        files: dict[str, _File] = {}
        about: list[Point] = []
        for entry in self._entries():
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            files[entry.name] = self._look_at(entry, status, now_ns)
            about.append((MTIME.at(entry.name), status.st_mtime_ns / 1e9))
            about.append((AGE.at(entry.name), (now_ns - status.st_mtime_ns) / 1e9))
        if files != self._files:
            self._files = files
            self._arrange()
        yield from self._points
        yield from about
        for name, file in files.items():
            faults = (*file.page.faults, *file.conflicts)
            yield OK.at(name), int(not faults)
            for fault in faults:
                self.fault(fault, os.path.join(self._directory, name))

    def _entries(self) -> list[os.DirEntry[str]]:
        """What lies in the folder and is wanted, by name."""
        try:
            with os.scandir(self._directory) as found:
                return sorted(
                    (entry for entry in found if self.config.wants(entry.name)),
                    key=lambda entry: entry.name,
                )
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Unavailable(
                f"there is no folder {self._directory}",
                "create it, or set collectors.textfile.directory",
            ) from error
        except PermissionError as error:
            raise Unavailable(
                f"cannot read {self._directory}: permission denied",
                "let the daemon's user read and enter it",
            ) from error

    def _look_at(self, entry: os.DirEntry[str], status: os.stat_result, now_ns: int) -> _File:
        """The file as it was if it has not changed, else read anew."""
        known = self._files.get(entry.name)
        if known is not None and known.stamp is not None and known.stamp == _stamp(status):
            return known
        try:
            data, status = read(entry.path, status, self.config.max_bytes)
            page = parse(data)
        except OSError as error:
            # What it takes to be readable may lie outside the file: try again.
            return _File(None, Page((), (ReadError(reason_of(error), str(error.strerror)),)))
        except ReadError as error:
            page = Page((), (error,))
        is_settled = abs(now_ns - status.st_mtime_ns) > _SETTLED_NS
        return _File(_stamp(status) if is_settled else None, page)

    def _arrange(self) -> None:
        """Put together what all files say, no series and no name twice: the first file has it."""
        metrics, self._metrics = self._metrics, {}
        arranged: list[Point] = []
        claims: dict[str, _Claim] = {}
        owners: dict[str, str] = {}
        for name, file in self._files.items():
            file.conflicts = []
            for family in file.page.families:
                try:
                    _check_names(family, claims)
                    _check_groups(family, owners)
                    points = list(self._points_of(family, metrics))
                except ReadError as error:
                    what = f"line {family.line}: {error}"
                    file.conflicts.append(ReadError(error.reason, what))
                    continue
                claims.update(dict.fromkeys(family.reserved, _Claim(family, name)))
                owners.update(dict.fromkeys(family.groups, name))
                arranged += points
        self._points = arranged

    def _points_of(self, family: Family, known: dict[object, Metric]) -> Iterator[Point]:
        """Metrics of before are used again, so that their series stay the same objects."""
        for sample in family.samples:
            labels = tuple(label for label, _ in sample.labels)
            key = (sample.name, family.name, family.kind, family.help, labels)
            metric = self._metrics.get(key) or known.get(key) or _metric(family, sample, labels)
            self._metrics[key] = metric
            yield metric.at(*(value for _, value in sample.labels)), sample.value


def _metric(family: Family, sample: Sample, labels: tuple[str, ...]) -> Metric:
    try:
        return Metric.foreign(
            sample.name,
            family=family.name,
            kind=family.kind,
            help_text=family.help,
            labels=labels,
            source=_SOURCE,
        )
    except ValueError as error:
        raise ReadError("invalid", str(error)) from error


def _check_groups(family: Family, owners: Mapping[str, str]) -> None:
    """Raises ReadError if a series, or a part of a histogram or summary, is in another file."""
    for group in family.groups:
        if group in owners:
            raise ReadError("duplicate", f"{group} is in {owners[group]} too")


def _check_names(family: Family, claims: Mapping[str, _Claim]) -> None:
    """Raises ReadError if a name of this family is taken."""
    if family.name.startswith(f"{PREFIX}_"):
        raise ReadError("invalid", f"{family.name}: names in {PREFIX}_ are the daemon's own")
    for name in family.reserved:
        claim = claims.get(name)
        if claim is None or claim.header == _Claim(family, "").header:
            continue
        other = claim.family
        what = (
            f"{family.kind.value} {family.name} and {other.kind.value} {other.name} of {claim.file}"
        )
        if (family.name, family.kind) == (other.name, other.kind):
            what += " have another help text"
        raise ReadError("conflict", f"{what} cannot stand side by side")


def _stamp(status: os.stat_result) -> _Stamp:
    return _Stamp(status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
