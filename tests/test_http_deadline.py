"""A request ends in time, whatever the receiver does, by remote write and to InfluxDB alike."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.certificates import make_certificates, server_side
from support.http_destinations import LINE, Connect, remote_write
from support.receiver import OK, Receiver, Reply, serving

from telemetryd.delivery import http_pool
from telemetryd.delivery.destination import Outcome
from telemetryd.delivery.queue import Body
from telemetryd.errors import Unavailable

SHORT_S = 0.3


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=["http", "https"])
def receiver(request: pytest.FixtureRequest, certificates: Path) -> Iterator[Receiver]:
    tls = server_side(certificates) if request.param == "https" else None
    with serving(Receiver(), tls) as found:
        yield found


@pytest.mark.parametrize(
    "reply",
    [
        Reply(hang=True),
        Reply(raw=b"HTTP/1.1 204 No Con", drip=b"tent"),
        Reply(raw=b"HTTP/1.1 204 No Content\r\nX-Slow: ", drip=b"x"),
        Reply(drip=b"HTTP/1.1 100 Continue\r\n\r\n"),
        Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n", drip=b"x"),
        Reply(raw=b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n", drip=b"1\r\nx\r\n"),
    ],
    ids=["hang", "status", "header", "continue", "body", "chunks"],
)
@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_an_answer_that_drips_is_given_up_and_told_as_a_timeout(
    connect: Connect, receiver: Receiver, reply: Reply
) -> None:
    receiver.script(reply, OK)
    with closing(connect(receiver.url, timeout=SHORT_S, verify=False)) as there:
        verdict = there.send(LINE)
        assert verdict.outcome is Outcome.RETRY
        assert verdict.status == 0
        assert "timed out" in verdict.detail
        assert there.send(LINE, 10.0).outcome is Outcome.OK, "over a new connection"


def test_each_request_has_all_of_the_time_again(connect: Connect, receiver: Receiver) -> None:
    """Over one connection, which is older than the time for a request."""
    receiver.script(Reply(delay=SHORT_S))
    with closing(connect(receiver.url, timeout=3 * SHORT_S, verify=False)) as there:
        assert [there.send(LINE).outcome for _ in range(4)] == [Outcome.OK] * 4
    assert len({request.connection for request in receiver.requests}) == 1


def test_doctor_tells_of_a_receiver_that_drips(connect: Connect) -> None:
    with serving(Receiver(Reply(drip=b"HTTP/1.1 100 Continue\r\n\r\n"))) as receiver:
        there = connect(receiver.url, timeout=SHORT_S)
        with closing(there), pytest.raises(Unavailable, match=r"timeout = 0\.3"):
            there.check()


def test_a_server_that_reads_nothing_is_given_up() -> None:
    body = Body(random.Random(1).randbytes(32 << 20), 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = remote_write(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=SHORT_S)
        with closing(there):
            verdict = there.send(body)
    assert verdict.outcome is Outcome.RETRY
    assert "timed out" in verdict.detail


def test_a_server_that_never_says_hello_over_tls_is_given_up(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = connect(f"https://127.0.0.1:{server.getsockname()[1]}", timeout=SHORT_S)
        with closing(there), pytest.raises(Unavailable, match="answers within"):
            there.check()


def test_a_handshake_of_tls_that_drips_is_given_up(connect: Connect) -> None:
    def drip() -> None:
        with server.accept()[0] as connection, suppress(OSError):
            # A record of 16 KiB, which never gets there.
            connection.sendall(b"\x16\x03\x03\x40\x00")
            while not over.wait(0.01):
                connection.sendall(b"\x02")

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        dripping = threading.Thread(target=drip)
        dripping.start()
        there = connect(f"https://127.0.0.1:{server.getsockname()[1]}", timeout=SHORT_S)
        with closing(there):
            verdict = there.send(LINE)
        over.set()
        dripping.join(10)
    assert verdict.outcome is Outcome.RETRY
    assert "timed out" in verdict.detail


@pytest.fixture
def deaf() -> Iterator[tuple[str, int]]:
    """An address where connecting hangs: as many as fit wait there already."""
    with socket.socket() as server:
        server.bind(("127.0.0.2", 0))
        server.listen(0)
        address = server.getsockname()
        waiting = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(address)
            waiting.append(one)
        yield address
        for one in waiting:
            one.close()


def test_an_address_that_does_not_answer_leaves_time_for_the_next_one(
    connect: Connect, deaf: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Receiver()) as receiver:
        port = int(receiver.url.rpartition(":")[2])
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
            for address in (deaf, ("127.0.0.1", port))
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments: found)
        with closing(connect(f"http://two.example:{port}", timeout=1.0)) as there:
            assert there.send(LINE).outcome is Outcome.OK


def test_all_addresses_of_a_name_together_have_no_more_time_than_one(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that only connecting moves."""
    waits: list[float] = []

    def hang(self: socket.socket, _address: object) -> None:
        waits.append(self.gettimeout() or 0.0)
        raise TimeoutError("timed out")

    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 1))] * 3
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments: found)
    monkeypatch.setattr(http_pool, "time", SimpleNamespace(monotonic=lambda: sum(waits)))
    monkeypatch.setattr(http_pool._Socket, "connect", hang)
    with closing(connect("http://many.example:1", timeout=3.0)) as there:
        verdict = there.send(LINE)
    assert waits == pytest.approx([1.0, 1.0, 1.0])
    assert (verdict.outcome, verdict.detail) == (
        Outcome.RETRY,
        "many.example:1: connecting timed out",
    )


def test_a_name_that_cannot_be_looked_up_is_told(connect: Connect) -> None:
    with closing(connect(f"http://{'a' * 70}.example:1")) as there:
        with pytest.raises(Unavailable, match="make it known to DNS"):
            there.check()
        assert there.send(LINE).outcome is Outcome.RETRY
