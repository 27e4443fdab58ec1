"""Pods: found with both cgroup drivers, named by a kubelet that may be slow, wrong or not there."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.clock import FakeClock
from support.trees import FIXTURES, host_at, values_of

from telemetryd.clock import Clock
from telemetryd.collectors.owners import Owners, OwnersConfig
from telemetryd.collectors.owners.kubelet import pods_of
from telemetryd.errors import ReadError

BURSTABLE = "d1c3a5e2-6f0b-4c2e-9a51-0e6b8b7f4c11"
BEST_EFFORT = "0b7d6a54-1c9e-4f37-8d2a-5a4e3c2b1f00"
STATIC = "5f1d1a7c9e0b4d3a8c6e2f4b1a0d9c8e"
MIB = 1 << 20
PODS = {
    "kind": "PodList",
    "items": [
        {"metadata": {"name": "llama-0", "namespace": "ml", "uid": BURSTABLE}},
        {"metadata": {"name": "web", "namespace": "shop", "uid": BEST_EFFORT, "annotations": None}},
        {
            "metadata": {
                "name": "etcd-node1",
                "namespace": "kube-system",
                "uid": "another",
                "annotations": {"kubernetes.io/config.hash": STATIC},
            }
        },
    ],
}
TOKEN = "a-token-that-nobody-else-may-see"


def _memory(kind: str, name: str) -> str:
    return f'telemetryd_owner_memory_bytes{{owner_kind="{kind}",owner="{name}"}}'


def _info(uid: str, name: str, namespace: str = "") -> str:
    labels = f'owner_kind="pod",owner="{uid}",name="{name}",user="",partition=""'
    return f'telemetryd_owner_info{{{labels},namespace="{namespace}"}}'


# who is there


def test_pods_of_the_systemd_driver_are_found_with_all_their_containers() -> None:
    values = values_of(Owners(OwnersConfig(), host_at(FIXTURES / "owners/kubernetes-systemd")))
    assert values[_memory("pod", BURSTABLE)] == 101 * MIB
    assert values[_memory("pod", BEST_EFFORT)] == 51 * MIB
    assert values[_memory("pod", STATIC)] == 20 * MIB
    assert values[_memory("unit", "kubelet.service")] == 60 * MIB
    assert values["telemetryd_owner_found{}"] == 5


def test_pods_of_the_cgroupfs_driver_are_found_with_all_their_containers() -> None:
    values = values_of(Owners(OwnersConfig(), host_at(FIXTURES / "owners/kubernetes-cgroupfs")))
    assert values[_memory("pod", BURSTABLE)] == 100 * MIB
    assert values[_memory("pod", STATIC)] == 20 * MIB
    assert values["telemetryd_owner_found{}"] == 3
    assert values[_info(BURSTABLE, BURSTABLE)] == 1


# the kubelet


class _Kubelet(BaseHTTPRequestHandler):
    """Answers with `answers[path]`: status and body."""

    server: _Server

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization", "")))
        status, body = self.server.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Kubelet)
        self.seen: list[tuple[str, str]] = []
        self.answer = 200, json.dumps(PODS).encode()

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextmanager
def _serving(context: ssl.SSLContext | None = None) -> Iterator[_Server]:
    server = _Server()
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def kubelet() -> Iterator[_Server]:
    with _serving() as server:
        yield server


class _Node:
    """A node whose pods are named by the kubelet at `url`."""

    def __init__(self, url: str, **settings: object) -> None:
        self.clock = FakeClock()
        config = OwnersConfig.model_validate({"kubelet_url": url, **settings})
        self.collector = Owners(config, host_at(FIXTURES / "owners/kubernetes-systemd", self.clock))
        self.faults: list[tuple[str, str]] = []
        self.collector.on_fault = lambda reason, what: self.faults.append((reason, what))

    def asks(self) -> dict[str, float]:
        """Two samples: one that asks, and one that has the answer."""
        self.sample()
        asked = self.collector._kubelet
        assert asked is not None
        if asked._round is not None:
            assert asked._round.wait(20, Clock())
        return self.sample()

    def sample(self, after: float = 5.0) -> dict[str, float]:
        self.clock.tick(after)
        return values_of(self.collector)


def _at(server: _Server, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.server_address[1]}"


def test_pods_have_the_names_that_the_kubelet_gives_them(kubelet: _Server) -> None:
    node = _Node(_at(kubelet))
    values = node.asks()
    assert values[_info(BURSTABLE, "llama-0", "ml")] == 1
    assert values[_info(BEST_EFFORT, "web", "shop")] == 1
    assert values[_info(STATIC, "etcd-node1", "kube-system")] == 1
    assert _info(BURSTABLE, BURSTABLE) not in values
    assert node.faults == []
    node.sample(3600)
    assert kubelet.seen == [("/pods", "")]  # all are known: it is left in peace


def test_a_pod_that_the_kubelet_does_not_know_yet_is_asked_for_again_but_not_at_once(
    kubelet: _Server,
) -> None:
    kubelet.answer = 200, json.dumps({"items": PODS["items"][:1]}).encode()  # type: ignore[index]
    node = _Node(_at(kubelet))
    values = node.asks()
    assert values[_info(BURSTABLE, "llama-0", "ml")] == 1
    assert values[_info(BEST_EFFORT, BEST_EFFORT)] == 1
    kubelet.answer = 200, json.dumps(PODS).encode()
    node.asks()
    assert len(kubelet.seen) == 1
    node.clock.tick(30)
    assert node.asks()[_info(BEST_EFFORT, "web", "shop")] == 1


@pytest.mark.parametrize(
    ("answer", "reason", "what"),
    [
        ((401, b""), "permission", "set kubelet_token_file"),
        ((403, b""), "permission", "nodes/proxy"),
        ((500, b""), "io", "HTTP 500"),
        ((302, b""), "io", "HTTP 302"),
        ((200, b"<html>"), "parse", "not a list of pods"),
        ((200, b'{"items": [{"metadata": 3}]}'), "parse", "not a list of pods"),
        ((200, b"[" * 100_000), "parse", "not a list of pods"),
    ],
)
def test_a_kubelet_that_gives_no_pods_is_a_fault_and_pods_keep_their_ids(
    kubelet: _Server, answer: tuple[int, bytes], reason: str, what: str
) -> None:
    kubelet.answer = answer
    node = _Node(_at(kubelet))
    assert node.asks()[_info(BURSTABLE, BURSTABLE)] == 1
    assert node.faults[0][0] == reason
    assert what in node.faults[0][1]
    assert f"{_at(kubelet)}/pods" in node.faults[0][1]
    node.asks()
    assert len(kubelet.seen) == 1  # a minute's pause


def test_a_kubelet_that_is_not_there_is_a_fault(kubelet: _Server) -> None:
    node = _Node("http://127.0.0.1:1")
    node.asks()
    assert node.faults[0][0] == "io"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that signs itself, and its key beside it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed (Debian package openssl)")
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", "server.key", "-out", "server.pem", "-days", "2",
         "-subj", "/CN=kubelet", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "server.pem"


@pytest.fixture
def secure(certificate: Path) -> Iterator[_Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with _serving(context) as server:
        yield server


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    return file


def test_over_tls_the_token_is_shown_and_the_certificate_checked(
    secure: _Server, certificate: Path, token: Path
) -> None:
    settings = {"kubelet_token_file": str(token), "kubelet_ca_file": str(certificate)}
    node = _Node(_at(secure, "https"), **settings)
    assert node.asks()[_info(BURSTABLE, "llama-0", "ml")] == 1
    assert secure.seen == [("/pods", f"Bearer {TOKEN}")]


def test_a_certificate_that_nobody_vouches_for_sees_no_token(secure: _Server, token: Path) -> None:
    node = _Node(_at(secure, "https"), kubelet_token_file=str(token))
    node.asks()
    assert "CERTIFICATE_VERIFY_FAILED" in node.faults[0][1]
    assert "kubelet_ca_file" in node.faults[0][1]
    assert secure.seen == []


def test_the_certificate_is_not_checked_where_the_configuration_says_so(
    secure: _Server, token: Path
) -> None:
    settings = {"kubelet_token_file": str(token), "kubelet_verify": False}
    node = _Node(_at(secure, "https"), **settings)
    assert node.asks()[_info(BURSTABLE, "llama-0", "ml")] == 1


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda file: file.unlink(), "missing"),
        (lambda file: file.write_text(""), "invalid"),
        (lambda file: file.write_text(f"{TOKEN}\r\nX: {TOKEN}"), "invalid"),
        (lambda file: file.write_bytes(b"\xff" + TOKEN.encode()), "invalid"),
    ],
)
def test_a_file_that_holds_no_token_is_named_and_never_shown(
    secure: _Server, token: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(token)
    node = _Node(_at(secure, "https"), kubelet_token_file=str(token), kubelet_verify=False)
    node.asks()
    assert node.faults[0][0] == reason
    assert f"kubelet_token_file {token}" in node.faults[0][1]
    assert TOKEN not in node.faults[0][1]
    assert secure.seen == []


@pytest.mark.parametrize(
    "settings",
    [
        {"kubelet_url": "127.0.0.1:10255"},
        {"kubelet_url": "ftp://127.0.0.1"},
        {"kubelet_url": "http://"},
        {"kubelet_url": "http://127.0.0.1:99999"},
        {"kubelet_url": "http://user:secret@127.0.0.1"},
        {"kubelet_url": "http://127.0.0.1/pods"},
        {"kubelet_url": "http://127.0.0.1:10255", "kubelet_token_file": "/token"},
        {"kubelet_token_file": "/token"},
        {"kubelet_url": "https://127.0.0.1", "kubelet_token_file": "token"},
    ],
)
def test_addresses_that_would_not_do_or_give_the_token_away_are_refused(
    settings: dict[str, str],
) -> None:
    with pytest.raises(ValidationError):
        OwnersConfig.model_validate(settings)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["items", "metadata", "uid", "name", "annotations"]), inner
        )
    ),
    max_leaves=10,
)


@given(_JSON)
def test_no_answer_of_a_kubelet_is_too_strange(answer: object) -> None:
    with suppress(ReadError):
        assert all(isinstance(uid, str) for uid, _ in pods_of(json.dumps(answer).encode()))
