"""TLS by remote write and to InfluxDB alike: whom we trust, what we show, and files that are
missing, broken or renewed while the daemon runs."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.certificates import make_certificates, server_side
from support.clock import FakeClock
from support.http_destinations import LINE, Connect, remote_write
from support.receiver import Receiver, serving
from support.remote_write_feed import VALUE
from support.servers import eventually

from telemetryd.batch import Batch
from telemetryd.delivery.destination import Outcome
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.errors import Unavailable
from telemetryd.exporters.remote_write import RemoteWrite, RemoteWriteConfig
from telemetryd.instruments import Instruments
from telemetryd.log import QuietLog


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def renewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("renewed"))


@pytest.fixture
def secure(certificates: Path, renewed: Path) -> Iterator[Receiver]:
    """Asks for a certificate, and accepts the old and the new one."""
    context = server_side(certificates)
    context.load_verify_locations(renewed / "client.pem")
    with serving(Receiver(), context) as found:
        yield found


@pytest.fixture
def mine(certificates: Path, tmp_path: Path) -> Path:
    """The folder that the configuration names."""
    folder = tmp_path / "tls"
    folder.mkdir()
    for name in ("server.pem", "client.pem", "client.key"):
        shutil.copy(certificates / name, folder)
    return folder


def files(folder: Path) -> dict[str, str]:
    return {
        "ca_file": str(folder / "server.pem"),
        "cert_file": str(folder / "client.pem"),
        "key_file": str(folder / "client.key"),
    }


def install(file: Path, folder: Path) -> None:
    """As tools that renew certificates do."""
    fresh = shutil.copy(file, folder / "fresh")
    os.replace(fresh, folder / file.name)


def der(file: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(file.read_text())


def test_a_server_is_trusted_by_its_authority_and_sees_our_certificate(
    connect: Connect, certificates: Path
) -> None:
    demanding = server_side(certificates)
    demanding.verify_mode = ssl.CERT_REQUIRED
    with (
        serving(Receiver(), demanding) as receiver,
        closing(connect(receiver.url, **files(certificates))) as there,
    ):
        assert there.send(LINE).outcome is Outcome.OK
    assert receiver.requests[0].certificate == der(certificates / "client.pem")


def test_a_server_that_nobody_vouches_for_gets_nothing(connect: Connect, secure: Receiver) -> None:
    with closing(connect(secure.url)) as there:
        assert there.send(LINE).outcome is Outcome.RETRY
        with pytest.raises(Unavailable, match=r"set exporters\.there\.ca_file"):
            there.check()
    assert secure.requests == []


def test_checking_the_certificate_can_be_switched_off(
    connect: Connect, secure: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(connect(secure.url, verify=False)) as there:
        assert there.send(LINE).outcome is Outcome.OK
    assert "certificate is not checked" in caplog.text


def test_plain_http_on_a_tls_port_and_the_reverse_are_told_apart(
    connect: Connect, secure: Receiver
) -> None:
    with serving(Receiver()) as plain:
        for url, remedy in (
            (secure.url.replace("https", "http"), "with TLS, https://"),
            (plain.url.replace("http", "https"), "see that the server speaks TLS on that port"),
        ):
            with closing(connect(url)) as there, pytest.raises(Unavailable, match=remedy):
                there.check()


# Files that cannot be used


@pytest.mark.parametrize("name", ["server.pem", "client.pem", "client.key"])
@pytest.mark.parametrize("text", [None, "not PEM"])
def test_files_that_cannot_be_used_are_waited_for(
    connect: Connect, secure: Receiver, mine: Path, certificates: Path, name: str, text: str | None
) -> None:
    (mine / name).unlink()
    if text is not None:
        (mine / name).write_text(text)
    with closing(connect(secure.url, **files(mine))) as there:
        for verdict in (there.send(LINE), there.probe()):
            assert verdict.outcome is Outcome.UNAUTHORIZED
            assert verdict.detail.startswith("cannot use ")
            assert str(mine / name) in verdict.detail
        key = "ca_file" if name == "server.pem" else "cert_file"
        with pytest.raises(Unavailable, match=rf"set exporters\.there\.{key} to readable PEM"):
            there.check()
        assert there.renew() is False
        assert secure.requests == []
        install(certificates / name, mine)
        assert there.renew() is True
        assert there.renew() is False
        there.check()
        assert there.send(LINE).outcome is Outcome.OK


def test_files_that_look_the_same_are_tried_again(
    secure: Receiver, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system had a fault, or too many files were open."""

    def fail(**_options: object) -> ssl.SSLContext:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(ssl, "create_default_context", fail)
        there = remote_write(secure.url, **files(mine))
        assert there.renew() is False
    with closing(there):
        assert there.send(LINE).outcome is Outcome.UNAUTHORIZED
        assert there.renew() is True
        assert there.send(LINE).outcome is Outcome.OK


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(
    connect: Connect, mine: Path
) -> None:
    subprocess.run(
        ["openssl", "pkey", "-in", "client.key", "-aes256", "-passout", "pass:x", "-out", "locked"],
        cwd=mine, check=True, capture_output=True,
    )  # fmt: skip
    locked = {**files(mine), "key_file": str(mine / "locked")}
    with (
        closing(connect("https://127.0.0.1:1", **locked)) as there,
        pytest.raises(Unavailable, match=r"client.pem and .*locked for TLS"),
    ):
        there.check()


def test_points_wait_in_the_spool_until_the_files_can_be_used(
    secure: Receiver, mine: Path, certificates: Path, tmp_path: Path
) -> None:
    (mine / "client.key").unlink()
    clock, instruments = FakeClock(), Instruments(QuietLog(logging.getLogger("test")))
    spool = SpoolConfig(directory=str(tmp_path / "spool"), free=0)
    config = RemoteWriteConfig(url=f"{secure.url}/api/v1/write", resolution=0, **files(mine))
    exporter = RemoteWrite("there", config, {}, instruments, spool, clock=clock)

    def shown(name: str) -> float:
        return next(
            value
            for one, value in instruments.points()
            if one.metric.name == f"telemetryd_{name}"
            and one.labels in {("there",), ("there", "unauthorized")}
        )

    exporter.start()
    try:
        now = clock.wall_ns(), clock.mono_ns()
        exporter.offer(Batch("c", *now, 1.0, (VALUE.at("a"),), (1.0,)))
        clock.tick(10)
        eventually(lambda: shown("exporter_blocked") == 1)
        assert shown("spool_records") == 1
        install(certificates / "client.key", mine)
        clock.tick(60)
        eventually(lambda: shown("exporter_points_total") == 1)
        assert shown("exporter_blocked") == 0
    finally:
        exporter.stop(10)
    assert {request.certificate for request in secure.requests} == {der(mine / "client.pem")}


# Files that were renewed


def test_certificates_that_were_renewed_are_shown_without_being_told(
    connect: Connect, secure: Receiver, mine: Path, certificates: Path, renewed: Path
) -> None:
    with closing(connect(secure.url, **files(mine))) as there:
        for _ in range(2):
            assert there.send(LINE).outcome is Outcome.OK
        for name in ("client.key", "client.pem"):
            install(renewed / name, mine)
        for _ in range(2):
            assert there.send(LINE).outcome is Outcome.OK
    old, new = der(certificates / "client.pem"), der(renewed / "client.pem")
    assert [request.certificate for request in secure.requests] == [old, old, new, new]
    connections = [request.connection for request in secure.requests]
    assert len(set(connections)) == 2, "it is kept as long as the files are the same"


def test_an_authority_that_was_replaced_in_place_is_trusted_at_the_next_request(
    connect: Connect, mine: Path, renewed: Path
) -> None:
    with (
        serving(Receiver(), server_side(renewed)) as receiver,
        closing(connect(receiver.url, ca_file=str(mine / "server.pem"))) as there,
    ):
        assert there.send(LINE).outcome is Outcome.RETRY
        (mine / "server.pem").write_text((renewed / "server.pem").read_text())
        assert there.send(LINE).outcome is Outcome.OK


def test_the_old_files_are_used_on_while_the_new_ones_cannot_be(
    connect: Connect,
    secure: Receiver,
    mine: Path,
    renewed: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with closing(connect(secure.url, **files(mine))) as there:
        there.send(LINE)
        # The key of another certificate, so far.
        install(renewed / "client.key", mine)
        for _ in range(2):
            assert there.send(LINE).outcome is Outcome.OK
        assert there.renew() is False
        (warning,) = [line for line in caplog.messages if "old TLS files" in line]
        assert str(mine / "client.key") in warning
        assert len({request.connection for request in secure.requests}) == 1
        install(renewed / "client.pem", mine)
        assert there.send(LINE).outcome is Outcome.OK
    assert secure.requests[-1].certificate == der(renewed / "client.pem")
