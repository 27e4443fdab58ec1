"""The daemon beside Debian's prometheus-node-exporter on this machine: `make bench`.

Prints tables and the targets beside them; nothing is asserted. `--write docs/performance.md` puts
the tables into that document. The raw figures go to bench/out/results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import energy
import gpu
import imports
import jitter
import push
import report
from measure import WARM_S, Contest, contest, disagree
from peers import ROOT, node_exporter, node_exporters, telemetryd
from trees import Size, planted

SECTIONS = ("cpu", "memory", "growth", "jitter", "imports", "gpu", "energy", "push")
SIZES = (Size(8, 4, 2), Size(64, 16, 8), Size(256, 64, 32))
# Scrapes in quick succession at the end of each round, for the latencies.
_QUICK = 200
_QUICK_ON_TREES = 60
_SHORT = {"rounds": 1, "seconds": 4, "jitter_seconds": 10}
_OUT = ROOT / "bench" / "out" / "results.json"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Bench:
    """Runs sections, and keeps the tables, the targets and the raw figures."""

    def __init__(self, rounds: int, seconds: int, jitter_seconds: int) -> None:
        self._rounds = rounds
        self._seconds = seconds
        self._jitter_seconds = jitter_seconds
        self._default: Contest | None = None
        self._others: list[float] = []
        self.targets = report.Targets()
        self.sections: dict[str, str] = {}
        self.raw: dict[str, object] = {}

    def _contest(self, what: str, seconds: int, quick: int, **options: object) -> Contest:
        say(f"{what}: {self._rounds} rounds of {seconds} s each")
        found = contest(
            telemetryd(**options), node_exporters(**options), self._rounds, seconds, quick, say
        )
        self._others += [one.others for one in (*found.ours, *found.theirs)]
        self.raw[what] = found
        return found

    def cpu(self) -> None:
        self._default = default = self._contest("defaults", self._seconds, _QUICK)
        common = self._contest("common list", self._seconds, 0, only_common=True)
        self.sections["cpu"] = report.cpu(default, common)
        self.sections["scrape"] = report.scrapes(default)
        at_most = self.targets.at_most
        at_most("CPU a second, of node_exporter's", default.ratio(report.cpu_us), 1.0)
        at_most("CPU per common series, of node_exporter's", common.ratio(report.cpu_us), 0.5)
        at_most("scrape p99, of node_exporter's", default.ratio(report.quick_p99), 0.5)

    def memory(self) -> None:
        default = self._default or self._contest("memory", min(self._seconds, 10), 0)
        self.sections["memory"] = report.memory(default)
        for what, of in (("as measured", "pss"), ("at most", "alone")):
            median = statistics.median(getattr(one.memory, of) for one in default.ours) / 1024
            self.targets.at_most(f"PSS with Prometheus alone, {what}, MiB", median, 40, ".1f")

    def growth(self) -> None:
        # Half the time each: there is much more to count.
        seconds = max(2, self._seconds // 2)
        found = []
        for size in SIZES:
            with planted(size) as tree:
                default = self._contest(f"{size}, defaults", seconds, _QUICK_ON_TREES, tree=tree)
                common = self._contest(
                    f"{size}, common list", seconds, 0, tree=tree, only_common=True
                )
                for one in disagree(tree=tree, only_common=True):
                    say(f"  NOT THE SAME: {one}")
            found.append((size, default, common))
            per_series = 0.25 if size.cpus >= 256 else 0.5
            what = f"CPU per common series at {size.cpus} CPUs, of node_exporter's"
            self.targets.at_most(what, common.ratio(report.cpu_us), per_series)
        self.sections["growth"] = report.growth(found)

    def jitter(self) -> None:
        say(f"jitter: {self._jitter_seconds} s with every core busy")
        found = jitter.measure(self._jitter_seconds)
        self.raw["jitter"] = found
        self.sections["jitter"] = report.jitter(found)
        at_most = self.targets.at_most
        at_most("late ticks p99 with busy cores, ms", found.ours.p99, found.bare.p99 + 5)
        at_most("ticks missed", max(found.ours.missed, found.counted), 0, ".0f")
        # As much as the bare thread's own, which cannot drift, and a millisecond.
        drift = abs(found.bare.drift_ms) + 1
        at_most(f"drift over {found.seconds} s, ms", abs(found.ours.drift_ms), drift)

    def imports(self) -> None:
        found = imports.measure()
        self.raw["imports"] = found
        self.sections["imports"] = report.imports(found)

    def gpu(self) -> None:
        if shutil.which("gcc") is None:
            say("gpu: no C compiler (gcc) for the fake driver; left out")
            return
        say(f"gpu: {gpu.GPUS} fake GPUs, and {gpu.GROWTH_SAMPLES:,} samples of them")
        found = gpu.measure()
        self.raw["gpu"] = found
        self.sections["gpu"] = report.gpus(found)
        at_most = self.targets.at_most
        at_most("CPU for a sample of 8 GPUs net of the driver, ms", found.collect_us / 1000, 1.5)
        at_most("CPU per value of a GPU, of the plain way's", found.per_value, 1.0)
        grown = (found.grown_kib - found.settled_kib) / 1024
        at_most(f"growth over {gpu.GROWTH_SAMPLES:,} samples of GPUs, MiB", grown, 0.5)

    def energy(self) -> None:
        say(f"energy: {energy.OWNERS} owners on {energy.GPUS} GPUs")
        found = energy.measure()
        self.raw["energy"] = found
        self.sections["energy"] = report.energy(found)
        what = f"CPU for the energy of {energy.OWNERS} owners on {energy.GPUS} GPUs, ms"
        self.targets.at_most(what, found.interval_us / 1000, 5)

    def push(self) -> None:
        say(f"push: {push.SERIES:,} series a second to both destinations, and a day of outage")
        found = push.measure()
        self.raw["push"] = found
        self.sections["push"] = report.push(found)
        at_most = self.targets.at_most
        points = found.ways["influxdb"].peer_us
        for kind, way in found.ways.items():
            what = f"CPU for a sample pushed by {kind}, of influxdb-client's Points"
            at_most(what, way.ours_us / points, 0.05, ".3f")
        grown = (found.grown_kib - found.settled_kib) / 1024
        at_most("growth over a day of outage, MiB", grown, 1)

    def machine(self) -> str:
        rows = [
            ["machine", f"{os.cpu_count()} x {_first('/proc/cpuinfo', 'model name')}"],
            ["kernel", f"{platform.system()} {platform.release()}"],
            ["system", _first("/etc/os-release", "PRETTY_NAME").strip('"')],
            ["Python", platform.python_version()],
            ["telemetryd", f"commit {_output('git', 'describe', '--always', '--dirty')}"],
            ["node_exporter", _node_exporter_version()],
            ["date", time.strftime("%Y-%m-%d", time.gmtime())],
            ["rounds", f"{self._rounds} of {self._seconds} s each, after {WARM_S} s of warming up"],
        ]
        if self._others:
            median, most = statistics.median(self._others), max(self._others)
            others = f"{median:.0%} of all CPU time in the median round, {most:.0%} at most"
            rows.append(["other work on the machine", others])
        return report.table(["", ""], rows)


def _first(path: str, key: str) -> str:
    with open(path) as lines:
        for line in lines:
            name, separator, value = line.replace(":", "=", 1).partition("=")
            if separator and name.strip() == key:
                return value.strip()
    return "unknown"


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return (done.stdout or done.stderr).strip()


def _node_exporter_version() -> str:
    try:
        words = _output(node_exporter(), "--version").split()
    except FileNotFoundError:
        return "not installed"
    return f"{words[2]} (Debian)" if len(words) > 2 else "unknown"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each peer (default 5)")
    parser.add_argument("--seconds", type=int, default=20, help="length of a round (default 20)")
    parser.add_argument(
        "--jitter-seconds", type=int, default=150, help="how long to watch the grid (default 150)"
    )
    parser.add_argument(
        "--only", default=",".join(SECTIONS), help=f"some of {','.join(SECTIONS)} (default all)"
    )
    parser.add_argument(
        "--short", action="store_true", help="one short round, to try the benchmark itself"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables there, too")
    arguments = parser.parse_args(argv)
    arguments.only = arguments.only.split(",")
    unknown = set(arguments.only) - set(SECTIONS)
    if unknown:
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}")
    if arguments.short:
        if arguments.write:
            parser.error("--short gives figures that are worth nothing; leave out --write")
        vars(arguments).update(_SHORT)
    if arguments.rounds < 1 or arguments.seconds < 2 or arguments.jitter_seconds < 10:
        parser.error("at least 1 round of 2 seconds, and 10 seconds of jitter")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    # So that the children go in order, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = Bench(arguments.rounds, arguments.seconds, arguments.jitter_seconds)
    wanted = arguments.only
    try:
        node_exporter()
    except FileNotFoundError as error:
        alone = ("jitter", "imports", "gpu", "energy", "push")
        wanted = [name for name in wanted if name in alone]
        say(f"{error}; without it only {', '.join(alone)} can be measured")
    steps: dict[str, Callable[[], None]] = {name: getattr(bench, name) for name in SECTIONS}
    for name in SECTIONS:
        if name in wanted:
            steps[name]()
    about = {"machine": bench.machine(), "targets": bench.targets.as_markdown()}
    for name, text in {**about, **bench.sections}.items():
        print(f"## {name}\n\n{text}")
    _OUT.parent.mkdir(parents=True, exist_ok=True)
    _OUT.write_text(json.dumps(report.as_json(bench.raw), indent=1) + "\n")
    if arguments.write:
        # What was measured apart says nothing of the rest of the document.
        whole = set(wanted) == set(SECTIONS)
        sections = {**about, **bench.sections} if whole else bench.sections
        for name in report.paste(arguments.write, sections):
            say(f"{arguments.write} has no place for {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
