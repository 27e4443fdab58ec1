"""The whole scrape of a fixture host, as it should be: names, labels, help texts and values.

tests/fixtures/host is a small server, tests/fixtures/host.prom what `telemetryd once` says of it,
in the order of names, with `*` for values that depend on the moment or on the machine of the test.
After a wanted change write it again, and look at what changed:

    .venv/bin/python tests/test_golden.py && git diff tests/fixtures/host.prom
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from difflib import unified_diff
from pathlib import Path
from tempfile import TemporaryDirectory

from support.daemon import ROOT
from support.trees import FIXTURES

HOST = FIXTURES / "host"
GOLDEN = FIXTURES / "host.prom"

# What depends on the moment, on this machine's disks (statvfs asks them), or on the load.
_VARIES = re.compile(
    r"telemetryd_(process_|textfile_(mtime|age)_|filesystem_(size|free|available)_"
    r"|system_time_|collector_(duration|busy|samples|overruns|errors)_"
    r"|utilization_(observed_)?seconds_total|utilization_ratio\{resource=\"filesystem\""
    r"|energy_joules_total\{source=\"hwmon\"|node_energy_(gap_seconds|joules)_total)"
)
# Families that are there or not: filesystems may have no fixed number of inodes, and a busy
# machine may miss a tick.
_OPTIONAL = re.compile(r"telemetryd_(filesystem_files|lane_missed_ticks)")
_VERSION = re.compile(r'(version|python)="[^"]*"')


def scrape() -> str:
    """What `telemetryd once` says of the fixture host, in the form of the golden file."""
    environ = {name: v for name, v in os.environ.items() if not name.startswith("TELEMETRYD_")}
    with TemporaryDirectory() as folder:
        config = Path(folder) / "telemetryd.toml"
        # Asks a library and not the fixture's files.
        config.write_text("[collectors.gpu_nvidia]\nenabled = false\n")
        page = subprocess.run(
            [sys.executable, "-m", "telemetryd", "once", "--config", str(config)]
            + [f"--{tree}fs={HOST / tree}" for tree in ("proc", "sys", "root")],
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        ).stdout
    return _normal(page)


def _normal(page: str) -> str:
    """Families in the order of their names, each with its header and its series in order."""
    families: dict[str, list[str]] = {}
    for line in page.splitlines():
        if line.startswith("# HELP"):
            family = families.setdefault(line.split()[2], [])
        family.append(line if line.startswith("#") else _masked(line))
    return "".join(
        "".join(f"{line}\n" for line in [*family[:2], *sorted(family[2:])])
        for name, family in sorted(families.items())
        if not _OPTIONAL.match(name)
    )


def _masked(line: str) -> str:
    series, _, value = line.rpartition(" ")
    if series.startswith("telemetryd_build_info"):
        series = _VERSION.sub(r'\1="*"', series)
    return f"{series} {'*' if _VARIES.match(series) else value}"


def test_the_scrape_of_the_fixture_host_is_as_it_was() -> None:
    expected, actual = GOLDEN.read_text(), scrape()
    diff = "".join(
        unified_diff(
            expected.splitlines(keepends=True), actual.splitlines(keepends=True), "golden", "now"
        )
    )
    assert not diff, f"see the docstring of {Path(__file__).name}\n{diff}"


if __name__ == "__main__":
    GOLDEN.write_text(scrape())
