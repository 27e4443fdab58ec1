"""sd_notify as systemd receives it: a real datagram socket stands in for systemd's."""

import os
import secrets
import socket
import time

import pytest

from telemetryd import notify


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path, monkeypatch):
    """systemd's end of NOTIFY_SOCKET, with the variable set as systemd sets it."""
    if request.param == "path":
        name = address = str(tmp_path / "notify")
    else:
        name = f"@telemetryd-test-{os.getpid()}-{secrets.token_hex(4)}"
        address = "\0" + name[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield receiver


def received(receiver):
    return receiver.recv(4096).decode().split("\n")


def test_each_change_of_state_is_one_datagram(systemd):
    assert notify.ready("12 collectors")
    assert received(systemd) == ["READY=1", "STATUS=12 collectors"]
    assert notify.status("still 12 collectors")
    assert received(systemd) == ["STATUS=still 12 collectors"]
    assert notify.watchdog()
    assert received(systemd) == ["WATCHDOG=1"]
    assert notify.stopping()
    assert received(systemd) == ["STOPPING=1"]


def test_a_reload_carries_the_monotonic_clock_and_ends_with_ready(systemd):
    before = time.monotonic_ns() // 1000
    assert notify.reloading()
    assert notify.ready()
    state, stamp = received(systemd)
    assert state == "RELOADING=1"
    name, _, value = stamp.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.monotonic_ns() // 1000
    assert received(systemd) == ["READY=1"]


def test_a_line_break_in_a_status_starts_no_assignment_of_its_own(systemd):
    assert notify.status("bad config:\nSTOPPING=1")
    assert received(systemd) == ["STATUS=bad config: STOPPING=1"]


def test_a_status_that_is_not_utf8_is_still_sent(systemd):
    assert notify.status(os.fsdecode(b"eth\xff"))
    assert received(systemd) == ["STATUS=eth?"]


@pytest.mark.parametrize("value", [None, "", "relative/path", "vsock:2:1234"])
def test_without_a_socket_of_systemd_nothing_is_sent(value, monkeypatch):
    if value is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", value)

    def refuse(*_):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(notify.socket, "socket", refuse)
    assert not notify.ready()


def test_a_socket_that_is_gone_does_not_raise(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify.watchdog()


def test_a_socket_name_that_is_too_long_does_not_raise(monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/" + "x" * 200)
    assert not notify.watchdog()


@pytest.mark.parametrize("pid", ["", str(os.getpid())])
def test_the_watchdog_interval_is_the_units_in_seconds(pid, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", pid or "0")
    if not pid:
        monkeypatch.delenv("WATCHDOG_PID")
    assert notify.watchdog_interval() == 30.0


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getppid())},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "me"},
    ],
    ids=["unset", "zero", "negative", "no number", "another process", "no process"],
)
def test_nobody_watches_unless_the_unit_says_so(environment, monkeypatch):
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert notify.watchdog_interval() is None
