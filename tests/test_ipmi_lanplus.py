"""The ipmi collector asking a BMC over the network.

The programs are the real ones, the BMC is simulated; where a program has to misbehave, a script of
its name stands in for it.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from support import bmc
from support.clock import FakeClock
from support.trees import FIXTURES, host_at, values_of

from telemetryd.collectors.ipmi import Ipmi, IpmiConfig
from telemetryd.errors import Broken, ReadError, Unavailable, reason_of

PACKAGES = {"ipmitool": "ipmitool", "ipmi-dcmi": "freeipmi-tools"}
GOOD = FIXTURES / "ipmi"


class _Desk:
    """Where a daemon stands that may ask a BMC: it has a file with the password."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.password = root / "password"
        self.password.write_text(f"{bmc.PASSWORD}\n")

    def open(self, port: int, command: str, **more: object) -> Ipmi:
        settings = {
            "host": "127.0.0.1",
            "port": port,
            "username": bmc.USERNAME,
            "password_file": str(self.password),
            "command": command,
            **more,
        }
        return Ipmi(IpmiConfig.model_validate(settings), host_at(self.root, FakeClock()))


@pytest.fixture
def desk(tmp_path: Path) -> _Desk:
    return _Desk(tmp_path)


@pytest.fixture(params=sorted(PACKAGES))
def command(request: pytest.FixtureRequest) -> str:
    """A real program, and a BMC to ask can be had."""
    if shutil.which(request.param, path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip(f"{request.param} is not installed (apt install {PACKAGES[request.param]})")
    if reason := bmc.why_not():
        pytest.skip(reason)
    return request.param


def refusal(collector: Ipmi) -> ReadError:
    with pytest.raises(ReadError) as refused:
        list(collector.sample())
    return refused.value


def series(device: str) -> str:
    return (
        f'telemetryd_power_watts{{source="ipmi",domain="system",device="{device}",'
        'boundary="enclosing"}'
    )


# Real programs and a simulated BMC


@pytest.mark.parametrize("watts", [1, 220, 10_800])
def test_the_power_that_the_bmc_measures_is_read(desk: _Desk, command: str, watts: int) -> None:
    with bmc.simulated(watts) as port:
        collector = desk.open(port, command)
        assert values_of(collector) == {series("127.0.0.1"): watts}
        assert values_of(collector) == {series("127.0.0.1"): watts}


def test_a_bmc_with_an_ipv6_address_is_read(desk: _Desk, command: str) -> None:
    try:
        with bmc.simulated(address="::1") as port:
            collector = desk.open(port, command, host="::1")
            assert values_of(collector) == {series("::1"): 220}
    except bmc.CannotServeError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    "password",
    ["a b", "#1", 'say "hi"', "back\\slash\\", "twenty bytes exactly", "$HOME;`id`", "größe", "-P"],
)
def test_a_password_may_be_anything_that_ipmi_allows(
    desk: _Desk, command: str, password: str
) -> None:
    desk.password.write_text(f"{password}\n")
    with bmc.simulated(accounts={bmc.USERNAME: password}) as port:
        assert values_of(desk.open(port, command)) == {series("127.0.0.1"): 220}


def test_a_password_that_is_changed_is_used_from_the_next_sample_on(
    desk: _Desk, command: str
) -> None:
    desk.password.write_text("the old one")
    with bmc.simulated() as port:
        collector = desk.open(port, command)
        refused = refusal(collector)
        assert refused.reason == "permission"
        assert "correct username and password_file" in str(refused)
        assert "the old one" not in str(refused)
        desk.password.write_text(bmc.PASSWORD)
        assert values_of(collector) == {series("127.0.0.1"): 220}


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        ({"active": False}, "invalid", "does not measure now"),
        ({"watts": 0}, "invalid", "no machine draws that"),
        ({"completion": 0xD4}, "permission", "give the user that privilege"),
        ({"completion": 0xC0}, "io", "restart the BMC"),
        ({"silent": True}, "timeout", "no answer"),
    ],
)
def test_a_bmc_that_gives_no_reading_is_a_fault_with_its_cause(
    desk: _Desk, command: str, state: dict[str, int], reason: str, words: str
) -> None:
    with bmc.simulated(**state) as port:
        refused = refusal(desk.open(port, command, timeout=1.5))
    assert refused.reason == reason
    assert words in str(refused)
    assert "asking 127.0.0.1" in str(refused)


def test_a_bmc_without_dcmi_makes_it_unavailable(desk: _Desk, command: str) -> None:
    with (
        bmc.simulated(completion=0xC1) as port,
        pytest.raises(Unavailable, match="Redfish"),
    ):
        list(desk.open(port, command).sample())


def test_a_user_that_the_bmc_does_not_know_is_no_answer_in_time(desk: _Desk, command: str) -> None:
    with bmc.simulated(accounts={"somebody": "else"}) as port:
        refused = refusal(desk.open(port, command, timeout=1.5))
    assert refused.reason == "timeout"
    assert "user" in str(refused)


def test_a_bmc_that_is_down_is_given_up_at_the_deadline_and_read_when_it_is_back(
    desk: _Desk, command: str
) -> None:
    with bmc.simulated() as port:
        pass
    collector = desk.open(port, command, timeout=0.5)
    refused = refusal(collector)
    assert refused.reason == "timeout"
    assert "IPMI over LAN (lanplus)" in str(refused)
    with bmc.simulated(port=port):
        assert values_of(desk.open(port, command)) == {series("127.0.0.1"): 220}


def test_a_cipher_suite_that_the_bmc_does_not_have_is_named(desk: _Desk, command: str) -> None:
    with bmc.simulated() as port:
        assert values_of(desk.open(port, command, cipher_suite=3)) == {series("127.0.0.1"): 220}
        assert "cipher_suite" in str(refusal(desk.open(port, command, cipher_suite=17)))


def test_a_name_that_does_not_resolve_is_named(desk: _Desk, command: str) -> None:
    refused = refusal(desk.open(623, command, host="bmc.invalid"))
    # Where there is no name server at all, asking for it may take longer than the deadline.
    assert refused.reason in {"missing", "timeout"}
    assert "bmc.invalid" in str(refused)


# Programs that misbehave


@pytest.fixture
def scripted(desk: _Desk, monkeypatch: pytest.MonkeyPatch):
    """Puts a script in the place of a program."""
    folder = desk.root / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(text: str, command: str = "ipmitool", **config: object) -> Ipmi:
        program = folder / command
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        return desk.open(623, command, **config)

    return put


def _is_running(pid: int) -> bool:
    """Whether there is such a process, be it a zombie."""
    return os.path.exists(f"/proc/{pid}")


def _gone(pid: int) -> bool:
    """Orphans are reaped by process 1, which may take a moment."""
    deadline = time.monotonic() + 10
    while _is_running(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_program_that_hangs_is_killed_with_all_that_it_started_and_reaped(
    desk: _Desk, scripted
) -> None:
    pids = desk.root / "pids"
    collector = scripted(
        f"trap '' TERM INT HUP\nsleep 1000 &\necho $$ $! >{pids}\nwait", timeout=0.5
    )
    refused = refusal(collector)
    assert refused.reason == "timeout"
    assert "does not end within 0.5 s" in str(refused)
    leader, child = map(int, pids.read_text().split())
    assert not _is_running(leader)
    assert _gone(child)


def test_a_program_that_is_done_while_its_child_keeps_the_pipe_is_given_up(
    desk: _Desk, scripted
) -> None:
    pids = desk.root / "pids"
    collector = scripted(
        f"sleep 1000 &\necho $! >{pids}\ncat {GOOD}/ipmitool/active.txt", timeout=0.5
    )
    assert refusal(collector).reason == "timeout"
    assert _gone(int(pids.read_text()))


def test_a_program_that_closes_its_outputs_and_goes_on_is_killed(desk: _Desk, scripted) -> None:
    pids = desk.root / "pids"
    collector = scripted(f"echo $$ >{pids}\nexec >&- 2>&-\nexec sleep 1000", timeout=0.5)
    assert refusal(collector).reason == "timeout"
    assert not _is_running(int(pids.read_text()))


def test_a_program_that_says_without_end_is_killed(desk: _Desk, scripted) -> None:
    pids = desk.root / "pids"
    refused = refusal(scripted(f"echo $$ >{pids}\nexec yes"))
    assert refused.reason == "parse"
    assert "more than 65536 bytes" in str(refused)
    assert not _is_running(int(pids.read_text()))


def test_garbage_and_bytes_that_are_not_utf8_are_a_fault_that_shows_them(scripted) -> None:
    refused = refusal(scripted(r"printf '\377\033[31m%s\n' garbage"))
    assert refused.reason == "parse"
    assert "garbage" in str(refused)
    assert "\x1b" not in str(refused)


def test_a_program_that_crashes_or_cannot_be_started_is_a_fault(desk: _Desk, scripted) -> None:
    assert "it says nothing" in str(refusal(scripted("kill -SEGV $$")))
    collector = scripted("exit 0")
    (desk.root / "bin/ipmitool").write_bytes(b"\x7fELF no program")
    refused = refusal(collector)
    assert refused.reason == "io"
    assert "cannot start" in str(refused)


def test_closing_ends_a_program_that_runs_and_starts_no_other(desk: _Desk, scripted) -> None:
    pids = desk.root / "pids"
    collector = scripted(f"echo $$ >{pids}.new\nmv {pids}.new {pids}\nexec sleep 1000", timeout=4)
    outcome: list[ReadError] = []
    sampling = threading.Thread(target=lambda: outcome.append(refusal(collector)))
    sampling.start()
    deadline = time.monotonic() + 4
    while not pids.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    collector.close()
    sampling.join(10)
    assert not sampling.is_alive()
    assert "it says nothing" in str(outcome[0])
    assert not _is_running(int(pids.read_text()))
    assert "not started any more" in str(refusal(collector))
    collector.close()


def test_what_was_said_before_the_deadline_helps_to_find_the_cause(scripted) -> None:
    collector = scripted("echo '> Error: no response from RAKP 1 message'\nsleep 1000", timeout=0.5)
    refused = refusal(collector)
    assert refused.reason == "timeout"
    assert "not to this user" in str(refused)


# Secrets and what is asked


def test_ipmitool_is_asked_to_read_with_the_least_privilege_and_no_password_in_sight(
    desk: _Desk, scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELEMETRYD_SECRET", "of somebody else")
    said = desk.root / "said"
    collector = scripted(
        f'printf "%s\\n" "$@" >{said}\nenv >>{said}\ncat {GOOD}/ipmitool/active.txt',
        cipher_suite=17,
        host="bmc1",
    )
    assert values_of(collector) == {series("bmc1"): 220}
    arguments = said.read_text().split("\n")
    command_line = arguments[: arguments.index("reading") + 1]
    assert " ".join(command_line) == (
        f"-v -I lanplus -E -H bmc1 -p 623 -U {bmc.USERNAME} -L USER -C 17 dcmi power reading"
    )
    assert f"IPMI_PASSWORD={bmc.PASSWORD}" in arguments
    assert "LC_ALL=C" in arguments
    assert "of somebody else" not in said.read_text()


def test_ipmi_dcmi_gets_the_password_in_a_file_that_is_on_no_disk(desk: _Desk, scripted) -> None:
    said = desk.root / "said"
    collector = scripted(
        f'printf "%s\\n" "$@" >{said}\nenv >>{said}\ncat "${{1#*=}}" >{said}.settings\n'
        f"readlink ${{1#*=}} >{said}.place\ncat {GOOD}/ipmi-dcmi/active.txt",
        command="ipmi-dcmi",
        privilege="administrator",
    )
    assert values_of(collector) == {series("127.0.0.1"): 220}
    assert bmc.PASSWORD not in said.read_text()
    assert "-D\nLAN_2_0\n-h\n127.0.0.1:623\n-l\nADMIN\n--get-system-pow" in said.read_text()
    settings = (desk.root / "said.settings").read_text()
    assert settings == f'username "{bmc.USERNAME}"\npassword "{bmc.PASSWORD}"\n'
    assert (desk.root / "said.place").read_text().startswith("/memfd:")


@pytest.mark.parametrize(
    ("password", "reason", "words"),
    [
        (None, "missing", "No such file"),
        ("", "invalid", "not one line of 1 to 20 bytes"),
        ("\n", "invalid", "not one line"),
        ("more than twenty bytes", "invalid", "not one line"),
        ("two\nlines", "invalid", "not one line"),
        ("x" * 100_000, "parse", "longer than"),
    ],
)
def test_a_password_file_that_cannot_be_used_is_named_without_what_it_says(
    desk: _Desk, scripted, password: str | None, reason: str, words: str
) -> None:
    ran = desk.root / "ran"
    collector = scripted(f"touch {ran}")
    desk.password.unlink()
    if password is not None:
        desk.password.write_text(password)
    refused = refusal(collector)
    assert refused.reason == reason
    assert str(desk.password) in str(refused)
    assert words in str(refused)
    assert "readable by the user that telemetryd runs as" in str(refused)
    assert not password or password.strip("\n") == "" or password not in str(refused)
    assert not ran.exists()


@pytest.mark.parametrize("command", sorted(PACKAGES))
def test_a_program_that_is_not_installed_is_named_with_its_package(
    desk: _Desk, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telemetryd.collectors.ipmi.collector._MORE_PATH", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Broken) as missing:
        desk.open(623, command)
    assert missing.value.remedy == f"apt install {PACKAGES[command]}"
    assert missing.value.__cause__ is not None
    assert reason_of(missing.value.__cause__) == "missing"


def test_many_samples_leave_no_process_and_no_open_file(scripted) -> None:
    collector = scripted(f"cat {GOOD}/ipmi-dcmi/active.txt", command="ipmi-dcmi")
    values_of(collector)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        values_of(collector)
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
