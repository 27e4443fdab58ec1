"""What pushing costs: 1,500 series a second, encoded, compressed, kept on disk and sent, beside the
client libraries' own ways; how fast the spool is; and what a day without the receiver does to
memory.

`python bench/push.py WHAT` is a child that `measure` starts: a process of its own, so that nothing
else is counted. The receiver is another one.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parent.parent
FAMILIES, DEVICES = 30, 50
SERIES = FAMILIES * DEVICES
_ROUNDS = 5
_SECONDS = 300
# What a push every 10 s carries of each series.
_TOGETHER = 10
_PEER_SECONDS = 50
# Batches that wait in memory while the exporter is fed.
_AT_ONCE = 50
_SPOOL_BODIES, _BODY_BYTES = 1000, 100 << 10
_OUTAGE_S, _SETTLED_S, _EVERY_S = 86_400, 3_600, 10
_KINDS = ("influxdb", "remote_write")


@dataclass(frozen=True, slots=True)
class Way:
    """CPU in microseconds for a sample, of ours and of the peer's, and bytes on the wire."""

    ours_us: float
    peer_us: float
    wire_bytes: float

    @property
    def ratio(self) -> float:
        return self.ours_us / self.peer_us


@dataclass(frozen=True, slots=True)
class Push:
    """`append` and `replay` in MiB a second with bodies of 100 KiB; proportional memory in KiB
    after an hour and after a day of outage, and the bodies that waited."""

    ways: dict[str, Way]
    append: float
    replay: float
    settled_kib: float
    grown_kib: float
    waiting: float


def measure() -> Push:
    with _receiver() as url:
        ways = {}
        for kind in _KINDS:
            each = range(_ROUNDS)
            rounds = [(_child("ours", kind, url), _child("peer", kind, url)) for _ in each]
            ways[kind] = Way(
                statistics.median(ours["us"] for ours, _ in rounds),
                statistics.median(peer["us"] for _, peer in rounds),
                statistics.median(ours["wire"] for ours, _ in rounds),
            )
    spool = [_child("spool") for _ in range(_ROUNDS)]
    outage = _child("outage")
    return Push(
        ways,
        statistics.median(one["append"] for one in spool),
        statistics.median(one["replay"] for one in spool),
        outage["settled"],
        outage["grown"],
        outage["waiting"],
    )


def _child(*words: str) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__)), *words]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)


@contextmanager
def _receiver() -> Iterator[str]:
    command = [sys.executable, str(Path(__file__)), "receiver"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _receive() -> None:
    """Take everything; `GET` tells how many bytes of bodies have come."""
    came = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal came
            came += len(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def do_GET(self) -> None:
            text = str(came).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_HEAD(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


def _came(url: str) -> int:
    import urllib3  # noqa: PLC0415

    return int(urllib3.request("GET", url).data)


def _metrics():
    from telemetryd.metric import Kind, Metric, Unit  # noqa: PLC0415

    return [
        Metric("bench", f"family_{number}", Kind.GAUGE, Unit.BYTES, "", "", ("device", "direction"))
        for number in range(FAMILIES)
    ]


def _batches(seconds: int, start_wall_ns: int, start_mono_ns: int, every_s: int = 1):
    """One batch for each `every_s` seconds; values change as counters and gauges do."""
    from telemetryd.batch import Batch  # noqa: PLC0415

    series = tuple(
        metric.at(f"device{number // 2}", ("receive", "transmit")[number % 2])
        for metric in _metrics()
        for number in range(DEVICES)
    )
    for second in range(0, seconds, every_s):
        values = tuple(float(place * 1000 + second * (place % 7)) for place in range(len(series)))
        passed = second * 10**9
        # An interval that no pause in this test exceeds: no series ends here.
        yield Batch("bench", start_wall_ns + passed, start_mono_ns + passed, 3600.0, series, values)


def _exporter(kind: str, url: str, folder: str, clock=None, **more: object):
    from telemetryd import plugins  # noqa: PLC0415
    from telemetryd.delivery.spool_config import SpoolConfig  # noqa: PLC0415
    from telemetryd.instruments import Instruments  # noqa: PLC0415

    own = {"influxdb": {"bucket": "b", "url": url}, "remote_write": {"url": f"{url}/api/v1/write"}}
    exporter = plugins.push_exporter_class(kind)
    config = exporter.Config.model_validate({"resolution": 0, **own[kind], **more})
    instruments = Instruments()
    labels = {"cluster": "bench"}
    spool = SpoolConfig(directory=folder, free=0)
    return exporter(kind, config, labels, instruments, spool, clock=clock), instruments


def _sent(instruments) -> float:
    from telemetryd.instruments import EXPORTER_POINTS  # noqa: PLC0415

    return sum(value for one, value in instruments.points() if one.metric is EXPORTER_POINTS)


def _ours(kind: str, url: str) -> dict[str, float]:
    """The exporter as it is in the daemon, with its two threads, fed as fast as it takes it."""
    before = _came(url)
    with tempfile.TemporaryDirectory() as folder:
        exporter, instruments = _exporter(kind, url, folder)
        start = time.time_ns() - _SECONDS * 10**9
        batches = list(_batches(_SECONDS, start, time.monotonic_ns()))
        exporter.start()
        cpu = time.process_time_ns()
        fed = 0
        for first in range(0, len(batches), _AT_ONCE):
            for batch in batches[first : first + _AT_ONCE]:
                exporter.offer(batch)
                fed += SERIES
            # Looking costs, too: seldom.
            while fed - _sent(instruments) > _AT_ONCE * SERIES:
                time.sleep(0.2)
        exporter.stop(60)
        used = time.process_time_ns() - cpu
        assert _sent(instruments) == fed, "not everything was sent"
    return {"us": used / 1000 / fed, "wire": (_came(url) - before) / fed}


def _peer(kind: str, url: str) -> dict[str, float]:
    batches = list(_batches(_PEER_SECONDS, time.time_ns(), time.monotonic_ns()))
    push = {"influxdb": _push_points, "remote_write": _push_generated}[kind]
    push(url, batches[:_TOGETHER])
    cpu = time.process_time_ns()
    push(url, batches)
    used = time.process_time_ns() - cpu
    return {"us": used / 1000 / (SERIES * _PEER_SECONDS)}


def _push_points(url: str, batches) -> None:
    """As influxdb-client's documentation shows it: a Point for each value."""
    from influxdb_client import InfluxDBClient, Point  # noqa: PLC0415
    from influxdb_client.client.write_api import SYNCHRONOUS  # noqa: PLC0415

    with InfluxDBClient(url, token="", org="o", enable_gzip=True) as client:
        write = client.write_api(write_options=SYNCHRONOUS)
        for first in range(0, len(batches), 3):
            points = [
                Point("telemetryd_bench").tag("host", "n1").tag("cluster", "bench")
                .tag("device", one.labels[0]).tag("direction", one.labels[1])
                .field(one.metric.quantity, value).time(batch.wall_ns)
                for batch in batches[first : first + 3]
                for one, value in batch.points
            ]  # fmt: skip
            write.write("b", "o", points)


def _push_generated(url: str, batches) -> None:
    """protobuf's classes for remote write, made from its description."""
    import cramjam  # noqa: PLC0415
    import urllib3  # noqa: PLC0415

    request_class = _write_request_class()
    pool = urllib3.PoolManager()
    headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
    for first in range(0, len(batches), _TOGETHER):
        group = batches[first : first + _TOGETHER]
        request = request_class()
        for place, one in enumerate(group[0].series):
            series = request.timeseries.add()
            labels = {
                "__name__": one.metric.name, "cluster": "bench", "job": "telemetryd",
                "instance": "n1", "device": one.labels[0], "direction": one.labels[1],
            }  # fmt: skip
            for name in sorted(labels):
                series.labels.add(name=name, value=labels[name])
            for batch in group:
                series.samples.add(value=batch.values[place], timestamp=batch.wall_ns // 10**6)
        body = bytes(cramjam.snappy.compress_raw(request.SerializeToString()))
        answer = pool.request("POST", f"{url}/api/v1/write", body=body, headers=headers)
        assert answer.status == 204


def _write_request_class():
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: PLC0415

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="bench.proto", package="bench", syntax="proto3")
    shapes = {
        "Label": [("name", field.TYPE_STRING, ""), ("value", field.TYPE_STRING, "")],
        "Sample": [("value", field.TYPE_DOUBLE, ""), ("timestamp", field.TYPE_INT64, "")],
        "TimeSeries": [("labels", field.TYPE_MESSAGE, "Label"),
                       ("samples", field.TYPE_MESSAGE, "Sample")],
        "WriteRequest": [("timeseries", field.TYPE_MESSAGE, "TimeSeries")],
    }  # fmt: skip
    for name, fields in shapes.items():
        message = file.message_type.add(name=name)
        for number, (called, kind, of) in enumerate(fields, 1):
            many = field.LABEL_REPEATED if of else field.LABEL_OPTIONAL
            message.field.add(
                name=called, number=number, type=kind, label=many,
                type_name=f".bench.{of}" if of else None,
            )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName("bench.WriteRequest")
    return message_factory.GetMessageClass(found)


def _spool() -> dict[str, float]:
    from telemetryd.clock import Clock  # noqa: PLC0415
    from telemetryd.delivery.queue import Body  # noqa: PLC0415
    from telemetryd.delivery.spool import open_spool  # noqa: PLC0415
    from telemetryd.delivery.spool_config import SpoolConfig  # noqa: PLC0415
    from telemetryd.instruments import Instruments  # noqa: PLC0415

    data = os.urandom(_BODY_BYTES)
    mebibytes = _SPOOL_BODIES * _BODY_BYTES / (1 << 20)
    with tempfile.TemporaryDirectory() as folder:
        spool = open_spool(
            f"{folder}/d", "influxdb", SpoolConfig(directory=folder, free=0),
            lambda *_: None, Instruments(), "d", Clock(),
        )  # fmt: skip
        before = time.monotonic()
        for _ in range(_SPOOL_BODIES):
            spool.put(Body(data, 1000, time.time_ns()))
            spool.sync()
        between = time.monotonic()
        while spool.peek() is not None:
            spool.acknowledge()
        after = time.monotonic()
        spool.close()
    return {"append": mebibytes / (between - before), "replay": mebibytes / (after - between)}


def _outage() -> dict[str, float]:
    """A day on a clock of our own: one batch and one flush every 10 s, and a sender that meets a
    closed port."""
    from clock import Memory  # noqa: PLC0415
    from support.clock import FakeClock  # noqa: PLC0415

    clock = FakeClock()
    with tempfile.TemporaryDirectory() as folder:
        exporter, _ = _exporter("remote_write", "http://127.0.0.1:1", folder, clock)
        # Its turns are taken here, not by threads.
        works = exporter._lane._open_works()  # noqa: SLF001
        settled = 0.0
        batches = _batches(_OUTAGE_S, clock.wall_ns(), clock.mono_ns(), _EVERY_S)
        for number, batch in enumerate(batches):
            exporter.offer(batch)
            clock.tick(_EVERY_S)
            works.writer.turn()
            works.sender.turn()
            if number == _SETTLED_S // _EVERY_S:
                settled = Memory.of(os.getpid()).alone
        grown = Memory.of(os.getpid()).alone
        waiting = len(works.queue)
        works.queue.close()
    return {"settled": settled, "grown": grown, "waiting": waiting}


def main() -> None:
    match sys.argv[1:]:
        case ["receiver"]:
            _receive()
        case ["ours", kind, url]:
            print(json.dumps(_ours(kind, url)))
        case ["peer", kind, url]:
            print(json.dumps(_peer(kind, url)))
        case ["spool"]:
            print(json.dumps(_spool()))
        case ["outage"]:
            print(json.dumps(_outage()))


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bench")]
    main()
