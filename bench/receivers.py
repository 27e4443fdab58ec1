"""Memory and CPU of a real receiver for each series: `python bench/receivers.py prometheus`.

Reads this node for a minute, then pushes its series under the names of many nodes by remote write,
ten samples of a series in a request, with times up to now: what --nodes would send in --minutes.
The memory is that of the whole server. What it writes to disk is not looked at: all nodes have the
same values, which compress too well.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bench")]

import cramjam  # noqa: E402  (found through the path above)
import psutil  # noqa: E402
import urllib3  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402
from report import table  # noqa: E402
from support.daemon import running  # noqa: E402
from support.servers import prometheus, victoria_metrics  # noqa: E402

from telemetryd.exporters.remote_write_message import Packer, labels_message  # noqa: E402

_SERVERS = {"prometheus": prometheus, "victoria": victoria_metrics}
_ROWS = 60
_TOGETHER = 10
_EVERY_MS = 10_000
_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
_Labels = tuple[tuple[str, str], ...]


def recorded() -> tuple[list[_Labels], list[list[float]]]:
    """The series of this node, and what they were in each second of a minute."""
    scrapes: list[dict[_Labels, float]] = []
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as daemon:
        time.sleep(5)
        for _ in range(_ROWS):
            families = text_string_to_metric_families(daemon.fetch().decode())
            scrapes.append(
                {
                    (("__name__", one.name), *sorted(one.labels.items())): one.value
                    for family in families
                    for one in family.samples
                }
            )
            time.sleep(1)
    lasting = [one for one in scrapes[0] if all(one in scrape for scrape in scrapes)]
    return lasting, [[scrape[one] for one in lasting] for scrape in scrapes]


def packer(series: Sequence[_Labels], node: int) -> Packer:
    """For these series as those of another node."""
    own = (("cluster", "c1"), ("instance", f"node{node:05d}"), ("job", "telemetryd"))
    return Packer(
        [
            labels_message(
                (name.encode(), value.encode()) for name, value in sorted([*one, *own]) if value
            )
            for one in series
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="memory and CPU of a receiver for each series")
    parser.add_argument("server", choices=sorted(_SERVERS))
    parser.add_argument("--nodes", type=int, default=100, help="how many (100)")
    parser.add_argument("--minutes", type=float, default=40, help="of samples every 10 s (40)")
    arguments = parser.parse_args()
    series, rows = recorded()
    packers = [packer(series, node) for node in range(arguments.nodes)]
    requests = int(arguments.minutes * 60_000 / _EVERY_MS / _TOGETHER)
    count = len(series) * arguments.nodes
    pool = urllib3.PoolManager()
    with (
        tempfile.TemporaryDirectory() as folder,
        _SERVERS[arguments.server](Path(folder)) as server,
    ):
        process = psutil.Process(server.process.pid)
        before = sum(process.cpu_times()[:2])
        begin_ms = int(time.time() * 1000) - requests * _TOGETHER * _EVERY_MS
        for request in range(requests):
            first = request * _TOGETHER
            stamps = [begin_ms + (first + place) * _EVERY_MS for place in range(_TOGETHER)]
            part = [rows[(first + place) % _ROWS] for place in range(_TOGETHER)]
            for one in packers:
                body = bytes(cramjam.snappy.compress_raw(one.pack(stamps, part)))
                answer = pool.request(
                    "POST", f"{server.url}/api/v1/write", body=body, headers=_HEADERS
                )
                assert answer.status == 204, answer.data
        used = sum(process.cpu_times()[:2]) - before
        time.sleep(5)
        memory = process.memory_info().rss
    samples = count * requests * _TOGETHER
    header = ("", "series", "samples", "KiB a series", "CPU us a sample")
    row = (
        arguments.server,
        count,
        samples,
        f"{memory / 1024 / count:.1f}",
        f"{used * 1e6 / samples:.2f}",
    )
    print(table(header, [row]), end="")


if __name__ == "__main__":
    main()
