"""The redfish collector and the certificate of a BMC."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.clock import FakeClock
from support.redfish_reader import ROOT, Open, Reader, eventually
from support.redfish_server import RedfishServer, Reply, serving, tree

from telemetryd.errors import Unavailable

SUPPLIES = f"{ROOT}/Chassis/1U/PowerSubsystem/PowerSupplies"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates that sign themselves: of 127.0.0.1, and of another name."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed (Debian package openssl)")
    folder = tmp_path_factory.mktemp("certificates")
    for name, subject in (("bmc", "IP:127.0.0.1"), ("other", "DNS:bmc.example")):
        subprocess.run(
            [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "30",
             "-subj", f"/CN={name}", "-addext", f"subjectAltName={subject}"],
            cwd=folder, check=True, capture_output=True,
        )  # fmt: skip
    return folder


def _secure(stack: ExitStack, certificates: Path, name: str = "bmc") -> RedfishServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    return stack.enter_context(serving(RedfishServer(tree("newer")), context))


def test_a_self_signed_certificate_is_trusted_when_it_is_given(
    stack: ExitStack, certificates: Path, reader: Open
) -> None:
    bmc = _secure(stack, certificates)
    here = reader(url=bmc.url, ca_file=str(certificates / "bmc.pem"))
    assert len(here.values()) == len(here.values()) == 8
    assert len({one.connection for one in bmc.asked}) == 1


def test_a_self_signed_certificate_is_refused_with_a_remedy(
    stack: ExitStack, certificates: Path, password_file: Path
) -> None:
    bmc = _secure(stack, certificates)
    with pytest.raises(Unavailable) as gone:
        Reader(bmc.url, password_file, FakeClock())
    assert "the certificate is not trusted" in gone.value.why
    assert "set collectors.redfish.ca_file" in gone.value.remedy
    assert f"openssl s_client -connect {bmc.url.removeprefix('https://')}" in gone.value.remedy
    assert bmc.asked == []


def test_a_certificate_of_another_name_is_refused_with_another_remedy(
    stack: ExitStack, certificates: Path, password_file: Path
) -> None:
    bmc = _secure(stack, certificates, "other")
    with pytest.raises(Unavailable, match="use a name in") as gone:
        Reader(bmc.url, password_file, FakeClock(), ca_file=str(certificates / "other.pem"))
    assert "IP address mismatch" in gone.value.why
    assert bmc.asked == []


def test_checking_the_certificate_can_be_switched_off_and_is_warned_of(
    stack: ExitStack, certificates: Path, reader: Open, caplog: pytest.LogCaptureFixture
) -> None:
    bmc = _secure(stack, certificates)
    assert len(reader(url=bmc.url, verify=False).values()) == 8
    assert "the certificate is not checked" in caplog.text


def test_a_password_in_the_clear_is_warned_of(
    reader: Open, caplog: pytest.LogCaptureFixture
) -> None:
    reader()
    assert "the password travels in the clear" in caplog.text


def test_plain_http_on_a_tls_port_and_the_reverse_are_told_apart(
    stack: ExitStack, certificates: Path, bmc: RedfishServer
) -> None:
    secure = _secure(stack, certificates)
    with pytest.raises(Unavailable, match="with TLS, https://"):
        Reader(secure.url.replace("https", "http"), None, FakeClock())
    with pytest.raises(Unavailable, match="speaks TLS"):
        Reader(bmc.url.replace("http", "https"), None, FakeClock())


def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"cannot use .*missing\.pem for TLS"):
        Reader("https://127.0.0.1", None, FakeClock(), ca_file=str(tmp_path / "missing.pem"))


@pytest.mark.parametrize("secure", [False, True])
def test_closing_ends_a_request_that_hangs(
    stack: ExitStack, reader: Open, certificates: Path, secure: bool
) -> None:
    bmc = _secure(stack, certificates) if secure else None
    bmc = bmc or stack.enter_context(serving(RedfishServer(tree("newer"))))
    here = reader(url=bmc.url, verify=False, timeout=60)
    here.values()
    before = len(bmc.asked)
    bmc.replies[f"{SUPPLIES}/Bay1/Metrics"] = Reply(hang=True)
    assert isinstance(here.clock, FakeClock)
    here.clock.tick(29.9)
    eventually(lambda: len(bmc.asked) > before)
    here.collector.close()
    eventually(lambda: not bmc.tokens)
