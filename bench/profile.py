"""Where a tick's time goes: `python bench/profile.py [--ticks 300] [--cpus 8 --disks 4 --nics 2]`.

Runs collectors, derivations, the pipeline and the renderer in this process, on this machine or on
a synthetic tree, and prints the median and the mean of each in microseconds. The clock goes on by
an interval with each tick, so that what is read anew every half a minute is in the mean. Garbage
collection is on, as in the daemon.

Not in it: threads and their locks, the HTTP server, waking up with cold caches. The whole daemon
is what bench/run.py measures.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import TypeVar

from report import table
from trees import Size, planted

from telemetryd import plugins
from telemetryd.batch import Batch, LatestTable
from telemetryd.clock import Clock
from telemetryd.collector import Collector
from telemetryd.config import Config, load
from telemetryd.derivation import Derivation
from telemetryd.errors import Unavailable
from telemetryd.exporters.prometheus import Format, Renderer
from telemetryd.host import Host
from telemetryd.instruments import Instruments
from telemetryd.metric import Point
from telemetryd.pipeline import Pipeline
from telemetryd.sampling import Sampling

_WARM_TICKS = 5
_INTERVAL_NS = 1_000_000_000
_GZIP_LEVEL = 1
_T = TypeVar("_T")


def _let_jiffies_pass() -> None:
    """CPU times are in units of 10 ms: if none went by, there would be nothing to derive."""
    time.sleep(0.025)


class _Steps(Clock):
    """The real clock, with an interval put in at each tick."""

    def __init__(self) -> None:
        self._ahead_ns = 0

    def step(self) -> None:
        self._ahead_ns += _INTERVAL_NS

    def mono_ns(self) -> int:
        return time.monotonic_ns() + self._ahead_ns


class _Times:
    """Nanoseconds spent in each part, by tick."""

    def __init__(self) -> None:
        self.of: dict[str, list[int]] = defaultdict(list)
        self.sizes: dict[str, int] = {}

    def take(self, part: str, work: Callable[[], _T]) -> _T:
        begun = time.perf_counter_ns()
        result = work()
        self.of[part].append(time.perf_counter_ns() - begun)
        return result

    def clear(self) -> None:
        self.of.clear()


class _Timed(Derivation):
    """A derivation whose updates are timed."""

    def __init__(self, derivation: Derivation, times: _Times) -> None:
        super().__init__(derivation.config)
        self.inputs = derivation.inputs  # type: ignore[misc]
        self.metrics = derivation.metrics  # type: ignore[misc]
        self._derivation = derivation
        self._times = times
        self._part = f"derive {type(derivation).__name__}"

    def update(self, batch: Batch, latest: LatestTable) -> Iterable[Point]:
        found = self._times.take(self._part, lambda: list(self._derivation.update(batch, latest)))
        self._times.sizes[self._part] = len(found)
        return found

    def forget(self, collector: str) -> None:
        self._derivation.forget(collector)


class _Profile:
    def __init__(self, config: Config, host: Host, clock: _Steps, only: Sequence[str]) -> None:
        self.times = _Times()
        self._clock = clock
        self._instruments = Instruments()
        derivations = [
            _Timed(one(config.derived), self.times) for one in plugins.derivation_classes()
        ]
        self._pipeline = Pipeline(self._instruments, derivations)
        # Never started: the collector `self` only asks it how the others are doing.
        sampling = Sampling(config, host, self._pipeline, self._instruments)
        self._collectors: dict[str, Collector] = {}
        for name, settings in config.collectors.items():
            if not only or name in only:
                try:
                    collector = plugins.collector_class(name)(settings, host)
                except Unavailable as gone:
                    print(f"{name}: {gone.why}", file=sys.stderr)
                else:
                    collector.attach(sampling)
                    self._collectors[name] = collector
        self._renderer = Renderer()

    def tick(self) -> None:
        self._clock.step()
        for name, collector in self._collectors.items():
            self._sample(name, collector)
        batches = self._pipeline.latest.live(self._clock.mono_ns())
        for form in Format:
            page = self.times.take(
                f"render {form.name.lower()}",
                lambda form=form: self._renderer.render(batches, form),
            )
            self.times.sizes[f"render {form.name.lower()}"] = sum(len(b.series) for b in batches)
        packer = zlib.compressobj(_GZIP_LEVEL)
        self.times.take("gzip", lambda: packer.compress(page) + packer.flush())

    def _sample(self, name: str, collector: Collector) -> None:
        part = f"collect {name}"
        wall_ns, mono_ns = self._clock.wall_ns(), self._clock.mono_ns()
        points = self.times.take(part, lambda: list(collector.sample()))
        self.times.sizes[part] = len(points)
        derived = self._derived_ns()
        self.times.take(
            f"publish {name}",
            lambda: self._pipeline.publish(name, collector, wall_ns, mono_ns, points),
        )
        # Without the derivations, which are counted apart.
        self.times.of[f"publish {name}"][-1] -= self._derived_ns() - derived

    def _derived_ns(self) -> int:
        parts = self.times.of.items()
        return sum(times[-1] for part, times in parts if part.startswith("derive") and times)

    def run(self, ticks: int, advance: Callable[[], None]) -> None:
        for number in range(_WARM_TICKS + ticks):
            if number == _WARM_TICKS:
                self.times.clear()
            advance()
            self.tick()

    def close(self) -> None:
        for collector in self._collectors.values():
            collector.close()

    def as_markdown(self) -> str:
        rows = []
        for part, times in sorted(
            self.times.of.items(), key=lambda item: -statistics.median(item[1])
        ):
            median, mean = statistics.median(times) / 1e3, statistics.mean(times) / 1e3
            size = self.times.sizes.get(part, 0)
            each = f"{median / size:.2f}" if size else ""
            rows.append([part, f"{median:,.0f}", f"{mean:,.0f}", size or "", each])
        total = sum(statistics.median(times) for times in self.times.of.values()) / 1e3
        rows.append(["all", f"{total:,.0f}", "", "", ""])
        return table(["part", "median us", "mean us", "series", "us per series"], rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/profile.py", description=__doc__)
    parser.add_argument("--ticks", type=int, default=300, help="default 300")
    parser.add_argument("--cpus", type=int, help="on a synthetic tree of so many CPUs")
    parser.add_argument("--disks", type=int, default=4, help="of that tree (default 4)")
    parser.add_argument("--nics", type=int, default=2, help="of that tree (default 2)")
    parser.add_argument("--only", default="", help="collectors to run, such as cpu,disk")
    arguments = parser.parse_args()
    clock = _Steps()
    with ExitStack() as stack:
        host, advance = Host(clock=clock), _let_jiffies_pass
        if arguments.cpus:
            size = Size(arguments.cpus, arguments.disks, arguments.nics)
            tree = stack.enter_context(planted(size))
            host, advance = Host(tree.procfs, tree.sysfs, clock=clock), tree.advance
        only = arguments.only.split(",") if arguments.only else []
        profile = _Profile(load([], {}), host, clock, only)
        profile.run(arguments.ticks, advance)
        profile.close()
    print(profile.as_markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
