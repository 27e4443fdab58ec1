"""Two real daemons under a real Prometheus: one on a fixture host that is at work, one here.

The fixture host has all the hardware that this machine may lack, and the fake driver's GPUs; only
the kernel's clock is asked here, because a system call says nothing of another machine. The energy
of the fixture host is estimated; here a BMC tells it. The fixture host pushes, too: to a
destination that takes everything but the first request, and to one that does not answer.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.daemon import ROOT, Daemon, running
from support.receiver import OK, Receiver, Reply, serving
from support.servers import Server, eventually, prometheus
from support.trees import FIXTURES, write_tree
from support.watched_gpus import JOB_GROUP, gpus_at_work

JOB = "telemetryd"
FIXTURE, HERE = "fixture", "here"
# What only the daemon here has.
ONLY_HERE = ("telemetryd_system_clock_", 'boundary="enclosing"')
DESTINATIONS = ("influxdb", "away")
ALERTS = ROOT / "dashboards/alerts.yaml"

_BEAT_S = 0.25
_GROUPS = [
    "sys/fs/cgroup/system.slice",
    "sys/fs/cgroup/system.slice/slurmstepd.scope",
    f"sys/fs/cgroup{JOB_GROUP}",
]
# What is added to the columns of a row at each beat. A row is known by one of its first words.
_STEPS: Mapping[str, Mapping[str, Mapping[int, int]]] = {
    "proc/stat": {
        "cpu0": {1: 15, 3: 3, 4: 6, 5: 1},
        "cpu1": {1: 5, 3: 2, 4: 18},
        "ctxt": {1: 900},
        "processes": {1: 3},
    },
    "proc/diskstats": {
        "nvme0n1": {3: 50, 5: 800, 6: 20, 7: 90, 9: 4000, 10: 60, 12: 110, 13: 80, 18: 4, 19: 2}
    },
    "proc/1/net/dev": {"eno1:": {1: 90_000_000, 2: 60_000, 9: 30_000_000, 10: 20_000}},
    "proc/1/net/snmp": {"Tcp:": {10: 80_000, 11: 60_000, 12: 12}},
    "sys/class/powercap/intel-rapl:0/energy_uj": {"": {0: 30_000_000}},
    # What a group uses, those above it use too.
    **{f"{group}/cpu.stat": {"usage_usec": {1: 90_000}} for group in _GROUPS},
}


@dataclass(frozen=True)
class Watched:
    """Prometheus with both daemons as targets, told apart by `instance`."""

    server: Server

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The vector that an expression gives now. Fails if Prometheus does not take it."""
        answer = self.server.get("/api/v1/query", query=expr)
        assert answer.status == 200, f"{answer.body.decode()}\n{expr}"
        result: list[dict[str, Any]] = answer.json["data"]["result"]
        return result

    def rules(self) -> list[dict[str, Any]]:
        """The alert rules as Prometheus understood them."""
        groups = self.server.get("/api/v1/rules").json["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """Both daemons and Prometheus, all at work. Skips where Prometheus is not installed."""
    host = folder / "host"
    shutil.copytree(FIXTURES / "host", host, symlinks=True)
    write_tree(host, {f"{group}/cpu.stat": "usage_usec 0\n" for group in _GROUPS})
    write_tree(
        host,
        {
            "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
            f"sys/fs/cgroup{JOB_GROUP}/memory.current": "8000000000\n",
        },
    )
    for name in (FIXTURE, HERE, "prometheus"):
        (folder / name).mkdir()
    with (
        serving(Receiver(Reply(status=503), OK)) as receiver,
        _at_work(host),
        gpus_at_work(folder, host) as gpus,
        running(folder / FIXTURE, _config(host) + _pushes(folder, receiver.url) + gpus) as fixture,
        running(folder / HERE, _bmc(folder)) as here,
    ):
        _miss_ticks(fixture)
        targets = {FIXTURE: fixture.port, HERE: here.port}
        with prometheus(folder / "prometheus", _scrapes(targets)) as server:
            both = Watched(server)
            eventually(lambda: len(both.query("telemetryd_build_info")) == len(targets))
            yield both


def _bmc(folder: Path) -> str:
    """The configuration of a daemon with the answer of a BMC, more than this machine can draw."""
    answer = folder / "power"
    answer.write_text((FIXTURES / "ipmi/ipmitool/active.txt").read_text().replace("220", "9000"))
    return f"""
[collectors.ipmi]
file = "{answer}"
interval = 5
max_age = 3600
"""


def _config(host: Path) -> str:
    return f"""
[host]
procfs = "{host}/proc"
sysfs = "{host}/sys"
rootfs = "{host}/root"
[collectors.filesystem]
interval = 1
[collectors.thermal]
interval = 1
[collectors.textfile]
interval = 1
max_series = 8 # one less than there are
[collectors.owners]
interval = 1
[collectors.hwmon_power]
enabled = false # its meter of the whole would be taken for the estimate
[derived.energy]
idle_watts = {{ "*" = 60 }}
budget_watts = 2000
pue = 1.3
price_per_kwh = 0.21
carbon_grams_per_kwh = 340
"""


def _pushes(folder: Path, url: str) -> str:
    """Where the fixture host pushes to: `url`, and the discard port, where nobody listens."""
    tables = [
        f"""
[exporters.{name}]
type = "influxdb"
url = "{address}"
bucket = "telemetry"
resolution = 1
flush_interval = 1
"""
        for name, address in zip(DESTINATIONS, (url, "http://127.0.0.1:9"), strict=True)
    ]
    return f'[spool]\ndirectory = "{folder / "spool"}"\n' + "".join(tables)


def _scrapes(targets: Mapping[str, int]) -> str:
    static = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}}
        for name, port in targets.items()
    ]
    # JSON is YAML.
    return json.dumps(
        {
            "global": {
                "scrape_interval": "1s",
                "scrape_timeout": "1s",
                "evaluation_interval": "1s",
            },
            "rule_files": [str(ALERTS)],
            "scrape_configs": [{"job_name": JOB, "static_configs": static}],
        }
    )


def _miss_ticks(daemon: Daemon) -> None:
    """Stop the daemon for two of its ticks."""
    daemon.signal(signal.SIGSTOP)
    time.sleep(2.5)
    daemon.signal(signal.SIGCONT)


@contextmanager
def _at_work(host: Path) -> Iterator[None]:
    """Let the counters of the host below `host` run."""
    stop = threading.Event()
    files = {host / name: rows for name, rows in _STEPS.items()}
    texts = {file: file.read_text() for file in files}
    # Once without the columns' blanks, so that the texts only ever get longer.
    for file, rows in files.items():
        file.write_text(_after(texts[file], rows, 0))

    def work() -> None:
        beat = 0
        while not stop.wait(_BEAT_S):
            beat += 1
            for file, rows in files.items():
                # In place: the daemon keeps its files open.
                with file.open("r+") as stream:
                    stream.write(_after(texts[file], rows, beat))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _after(text: str, rows: Mapping[str, Mapping[int, int]], beat: int) -> str:
    lines = []
    for line in text.splitlines():
        words = line.split()
        key = next((key for key in rows if not key or key in words[:3]), None)
        if key is None or not words[-1].isdigit():
            lines.append(line)
            continue
        for column, step in rows[key].items():
            words[column] = str(int(words[column]) + beat * step)
        lines.append(" ".join(words))
    return "\n".join(lines) + "\n"
