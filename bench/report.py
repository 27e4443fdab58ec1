"""What was measured, as Markdown: tables, the targets beside them, and pasting into a document."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from clock import Memory
from common import match
from energy import OWNERS, Energy
from gpu import GPUS, GROWTH_SAMPLES, Gpus
from imports import Step
from jitter import Jitter
from measure import Contest, Round, percentile
from push import Push
from trees import Size

Row = Sequence[object]


def table(header: Sequence[str], rows: Iterable[Row]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _of_rounds(rounds: Sequence[Round], of: Callable[[Round], float]) -> float:
    return statistics.median(map(of, rounds))


def _both(contest: Contest, of: Callable[[Round], float], form: str, scale: float = 1) -> list[str]:
    """A figure of both peers as medians, and the median of the paired ratios with their range."""
    values = [_of_rounds(rounds, of) * scale for rounds in (contest.ours, contest.theirs)]
    return [*(format(value, form) for value in values), _ratio(contest, of)]


def _ratio(contest: Contest, of: Callable[[Round], float]) -> str:
    ratios = [of(a) / of(b) for a, b in zip(contest.ours, contest.theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def cpu_us(one: Round) -> float:
    return one.cpu_us


def quick_p99(one: Round) -> float:
    return percentile(one.quick, 0.99)


def _quick_p50(one: Round) -> float:
    return percentile(one.quick, 0.5)


def _user_us(rounds: Sequence[Round]) -> float:
    """Of all rounds together: the timer tick finds a process that works for milliseconds a second
    only now and then."""
    sampled = sum(one.sampled_us for one in rounds)
    share = sum(one.user_us for one in rounds) / sampled if sampled else math.nan
    return share * _of_rounds(rounds, cpu_us)


def common_series(contest: Contest) -> int:
    return len(match(contest.ours[-1].last.series(), contest.theirs[-1].last.series()))


def cpu(default: Contest, common: Contest) -> str:
    rows: list[Row] = []
    for name, contest in (("defaults", default), ("common list", common)):
        rows.append([f"{name}: CPU, us a second", *_both(contest, cpu_us, ",.0f")])
        user = [_user_us(rounds) for rounds in (contest.ours, contest.theirs)]
        system = [
            _of_rounds(rounds, cpu_us) - mine
            for rounds, mine in zip((contest.ours, contest.theirs), user, strict=True)
        ]
        for mode, values in (("user", user), ("system", system)):
            cells = [f"{value:,.0f}" for value in values]
            rows.append([f"{name}: {mode}, about", *cells, f"{values[0] / values[1]:.2f}"])
        series = [rounds[-1].series for rounds in (contest.ours, contest.theirs)]
        rows.append([f"{name}: series exported", *series, ""])
        per_own = [
            f"{_of_rounds(rounds, cpu_us) / count:.2f}"
            for rounds, count in zip((contest.ours, contest.theirs), series, strict=True)
        ]
        rows.append([f"{name}: us per series exported", *per_own, ""])
    count = common_series(common)
    rows.append(["common list: series that both export", count, count, ""])
    rows.append(["common list: us per common series", *_both(common, cpu_us, ".2f", 1 / count)])
    return table(["", "telemetryd", "node_exporter", "ratio"], rows)


def scrapes(contest: Contest) -> str:
    rows: list[Row] = [
        ["20 a second, p50, ms", *_both(contest, _quick_p50, ".2f", 1e3)],
        ["20 a second, p99, ms", *_both(contest, quick_p99, ".2f", 1e3)],
    ]
    pooled = [[s for one in rounds for s in one.paced] for rounds in (contest.ours, contest.theirs)]
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        values = [percentile(latencies, share) * 1e3 for latencies in pooled]
        cells = [f"{value:.2f}" for value in values]
        rows.append([f"1 a second, all rounds, {name}, ms", *cells, f"{values[0] / values[1]:.2f}"])
    sizes = [len(rounds[-1].last.body) for rounds in (contest.ours, contest.theirs)]
    rows.append(["bytes on the wire, gzip", *(f"{size:,}" for size in sizes), ""])
    return table(["", "telemetryd", "node_exporter", "ratio"], rows)


def memory(contest: Contest) -> str:
    kinds: list[tuple[str, Callable[[Memory], int]]] = [
        ("proportional (PSS), as measured", lambda m: m.pss),
        ("proportional (PSS), at most", lambda m: m.alone),
        ("private", lambda m: m.private),
        ("resident (RSS)", lambda m: m.rss),
    ]
    rows = [
        [
            name,
            *(
                f"{_of_rounds(rounds, lambda one, of=of: of(one.memory)) / 1024:.1f}"
                for rounds in (contest.ours, contest.theirs)
            ),
        ]
        for name, of in kinds
    ]
    return table(["MiB", "telemetryd", "node_exporter"], rows)


def imports(steps: Sequence[Step]) -> str:
    rows, before = [], 0.0
    for step in steps:
        alone = step.memory.alone / 1024
        cells = f"{alone - before:+.1f}", f"{alone:.1f}", f"{step.memory.pss / 1024:.1f}"
        rows.append([step.name, *cells])
        before = alone
    return table(
        ["imported", "adds at most, MiB", "PSS at most, MiB", "PSS as measured, MiB"], rows
    )


def jitter(found: Jitter) -> str:
    rows = [
        [name, f"{of(found.ours)}", f"{of(found.bare)}"]
        for name, of in (
            ("ticks", lambda grid: len(grid.late_ms)),
            ("late, p50, ms", lambda grid: f"{grid.p50:.2f}"),
            ("late, p99, ms", lambda grid: f"{grid.p99:.2f}"),
            ("late, most, ms", lambda grid: f"{max(grid.late_ms):.2f}"),
            ("ticks missed", lambda grid: grid.missed),
            (f"drift over {found.seconds} s, ms", lambda grid: f"{grid.drift_ms:+.2f}"),
        )
    ]
    return table([f"{found.cores} busy cores", "telemetryd", "bare thread"], rows)


def growth(sizes: Sequence[tuple[Size, Contest, Contest]]) -> str:
    rows: list[Row] = []
    for size, default, common in sizes:
        count = common_series(common)
        rows += [
            [size, "CPU, us a second", *_both(default, cpu_us, ",.0f")],
            ["", "scrape p99, ms", *_both(default, quick_p99, ".2f", 1e3)],
            ["", "series", default.ours[-1].series, default.theirs[-1].series, ""],
            ["", "PSS, MiB", *_both(default, lambda r: r.memory.pss, ".1f", 1 / 1024)],
            ["", f"us per series of {count} common", *_both(common, cpu_us, ".2f", 1 / count)],
        ]
    return table(["machine", "", "telemetryd", "node_exporter", "ratio"], rows)


def gpus(found: Gpus) -> str:
    rows: list[Row] = [
        ["values of a GPU", f"{found.values:.0f}", f"{found.plain_values:.0f}"],
        [
            f"CPU for a sample of {GPUS} GPUs, us",
            f"{found.collect_us:,.0f}",
            f"{found.plain_us:,.0f}",
        ],
        [
            "the same per value",
            f"{found.collect_us / found.values / GPUS:.2f}",
            f"{found.plain_us / found.plain_values / GPUS:.2f}",
        ],
        ["derived figures, us", f"{found.derive_us:,.0f}", ""],
        ["inside the fake driver, us", f"{found.library_us:,.0f}", ""],
        [
            f"resident after {GROWTH_SAMPLES:,} samples, MiB",
            f"{found.grown_kib / 1024:.1f} ({(found.grown_kib - found.settled_kib) / 1024:+.2f})",
            "",
        ],
    ]
    return table(["", "telemetryd", "plain"], rows)


def energy(found: Energy) -> str:
    rows: list[Row] = [
        [f"a batch of {GPUS} GPUs, every second", f"{found.gpus_us:,.0f}"],
        ["a batch of 2 CPU packages, every second", f"{found.rapl_us:,.0f}"],
        [f"a batch of {OWNERS} owners, every 5 s", f"{found.owners_us:,.0f}"],
        ["a batch of the BMC, every 30 s", f"{found.bmc_us:,.0f}"],
        ["all of them in one second", f"{found.interval_us:,.0f}"],
        ["the most of a second (a window closes, garbage is collected)", f"{found.most_us:,.0f}"],
        ["the mean of a second", f"{found.mean_us:,.0f}"],
        ["series of the node's energy", f"{found.series:.0f}"],
    ]
    return table(["CPU, us", "telemetryd"], rows)


def push(found: Push) -> str:
    names = {"influxdb": "InfluxDB", "remote_write": "remote write"}
    rows: list[Row] = []
    for kind, way in found.ways.items():
        name = names[kind]
        ours, peer = f"{way.ours_us:.2f}", f"{way.peer_us:.2f}"
        rows.append([f"{name}: CPU for a sample, us", ours, peer, f"{way.ratio:.3f}"])
        rows.append([f"{name}: bytes on the wire for a sample", f"{way.wire_bytes:.1f}", "", ""])
    grown = (found.grown_kib - found.settled_kib) / 1024
    rows += [
        ["spool: bodies of 100 KiB put and synced, MiB/s", f"{found.append:,.0f}", "", ""],
        ["spool: the same read and acknowledged, MiB/s", f"{found.replay:,.0f}", "", ""],
        ["bodies that wait after a day of outage", f"{found.waiting:,.0f}", "", ""],
        ["memory after an hour of it, MiB", f"{found.settled_kib / 1024:.1f}", "", ""],
        ["memory after a day of it, MiB", f"{found.grown_kib / 1024:.1f} ({grown:+.2f})", "", ""],
    ]
    return table(["", "telemetryd", "client library", "ratio"], rows)


class Targets:
    """What was aimed at, beside what was measured."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def at_most(self, what: str, measured: float, limit: float, form: str = ".2f") -> None:
        self._rows.append(
            [
                what,
                f"at most {format(limit, form)}",
                format(measured, form),
                "yes" if measured <= limit else "**no**",
            ]
        )

    def as_markdown(self) -> str:
        return table(["target", "aimed at", "measured", "met"], self._rows)


def as_json(value: Any) -> Any:
    """Contests and the like without what the peers answered, for a file beside the tables."""
    if isinstance(value, Round):
        cut = {"last"}
        fields = {f: as_json(getattr(value, f)) for f in value.__slots__ if f not in cut}
        return {**fields, "series": value.series}
    if hasattr(value, "__slots__"):
        return {field: as_json(getattr(value, field)) for field in value.__slots__}
    if isinstance(value, dict):
        return {str(key): as_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    return value


def paste(document: Path, sections: dict[str, str]) -> list[str]:
    """Put each section between its markers in the document; the names of those without any."""
    text = document.read_text()
    lost = []
    for name, content in sections.items():
        before, begin, rest = text.partition(f"<!-- bench:{name} -->\n")
        _, end, after = rest.partition(f"<!-- /bench:{name} -->")
        if end:
            text = f"{before}{begin}\n{content}\n{end}{after}"
        else:
            lost.append(name)
    document.write_text(text)
    return lost
