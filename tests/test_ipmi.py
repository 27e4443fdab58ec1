"""The ipmi collector on what the two programs print, and on the file that the timer writes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.clock import FakeClock
from support.trees import FIXTURES, host_at, values_of

from telemetryd.collectors.ipmi import Ipmi, IpmiConfig
from telemetryd.collectors.ipmi.answer import watts_in
from telemetryd.errors import ReadError, Unavailable

SAID = FIXTURES / "ipmi"
PROGRAMS = ("ipmitool", "ipmi-dcmi")
FILE = "run/telemetryd-ipmi/power"
READING = {"ipmitool": "Instantaneous power reading:", "ipmi-dcmi": "Current Power "}


def _power(device: str = "bmc", boundary: str = "enclosing") -> str:
    return (
        f'telemetryd_power_watts{{source="ipmi",domain="system",device="{device}",'
        f'boundary="{boundary}"}}'
    )


def _said(program: str, name: str = "active") -> str:
    return (SAID / program / f"{name}.txt").read_text()


class _Node:
    """A machine whose oneshot wrote a file, on a clock that stands still."""

    def __init__(self, root: Path) -> None:
        self.clock = FakeClock()
        self.host = host_at(root, self.clock)
        self.file = root / "root" / FILE
        self.file.parent.mkdir(parents=True)

    def write(self, text: str | bytes, age: float = 0.0) -> None:
        self.file.write_bytes(text.encode() if isinstance(text, str) else text)
        written_ns = self.clock.wall_ns() - int(age * 1e9)
        os.utime(self.file, ns=(written_ns, written_ns))

    def open(self, **config: object) -> Ipmi:
        return Ipmi(IpmiConfig.model_validate(config), self.host)

    def refusal(self, text: str | bytes) -> ReadError:
        """What a sample of this file comes to, after one that was good."""
        self.write(_said("ipmitool"))
        collector = self.open()
        self.write(text)
        with pytest.raises(ReadError) as refused:
            list(collector.sample())
        return refused.value


@pytest.fixture
def node(tmp_path: Path) -> _Node:
    return _Node(tmp_path)


# What the programs print


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_current_power_is_read_and_nothing_else(node: _Node, program: str) -> None:
    node.write(_said(program))
    assert values_of(node.open()) == {_power(): 220}


@pytest.mark.parametrize("program", PROGRAMS)
def test_minimum_maximum_and_average_never_stand_in_for_the_current_power(
    node: _Node, program: str
) -> None:
    lines = _said(program).splitlines(keepends=True)
    rest = [line for line in lines if READING[program] not in line]
    assert len(rest) == len(lines) - 1
    assert node.refusal("".join(rest)).reason == "parse"


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("not-active", "does not measure now"),
        ("zero-watts", "no machine draws that"),
        ("all-bits-set", "no machine draws that"),
    ],
)
def test_what_a_bmc_says_that_does_not_know_is_no_reading(
    node: _Node, program: str, name: str, words: str
) -> None:
    refused = node.refusal(_said(program, name))
    assert refused.reason == "invalid"
    assert words in str(refused)
    assert str(node.file) in str(refused)


@pytest.mark.parametrize(
    ("name", "reason", "remedy"),
    [
        ("wrong-password", "permission", "correct username and password_file"),
        ("privilege-too-low", "permission", "set privilege"),
        ("no-bmc", "timeout", "IPMI over LAN"),
        ("silent", "timeout", "IPMI over LAN"),
        ("no-device", "missing", "modprobe -a ipmi_si ipmi_devintf"),
        ("busy", "io", "restart the BMC"),
    ],
)
@pytest.mark.parametrize("program", PROGRAMS)
def test_each_complaint_is_counted_by_its_cause_and_has_a_remedy(
    node: _Node, program: str, name: str, reason: str, remedy: str
) -> None:
    refused = node.refusal(_said(program, name))
    assert refused.reason == reason
    assert remedy in str(refused)


def test_a_cipher_suite_that_the_bmc_does_not_have_is_told_from_a_wrong_password(
    node: _Node,
) -> None:
    refused = node.refusal(_said("ipmitool", "wrong-cipher"))
    assert refused.reason == "unsupported"
    assert "17, or 3 on an old one" in str(refused)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_bmc_without_dcmi_makes_it_unavailable_at_the_start_and_later(
    node: _Node, program: str
) -> None:
    node.write(_said(program))
    collector = node.open()
    node.write(_said(program, "no-dcmi"))
    for look in (node.open, lambda: list(collector.sample())):
        with pytest.raises(Unavailable) as gone:
            look()
        assert "Redfish" in gone.value.remedy


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("220 Watts", "220,5 Watts", "220,5"),
        ("220 Watts", "220.5 Watts", "220.5"),
        ("220 Watts", "1.220 Watts", "1.220"),
        ("220 Watts", "-3 Watts", "-3"),
        ("220 Watts", "0xDC Watts", "0xDC"),
        ("220 Watts", "220 kW", "220 kW"),
        ("220 Watts", "220", "power reading:                   220"),
        ("220 Watts", "1000000 Watts", "1000000"),
        ("220 Watts", "٢٢٠ Watts", "٢٢٠"),
        ("220 Watts", "", "power reading:"),
        ("activated", "unknown", "unknown"),
        ("activated", "", "Power reading state is:"),
    ],
)
def test_a_line_that_is_no_reading_is_named(node: _Node, old: str, new: str, named: str) -> None:
    refused = node.refusal(_said("ipmitool").replace(old, new))
    assert refused.reason == "parse"
    assert named in str(refused)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "it says nothing"),
        ("\n\n \n", "it says nothing"),
        ("\nwhat is this?\nand this?\n", "'what is this?'"),
        (b"\xff\xfe\x00watts\x1b[2J\n", r"\x1b[2J"),
        (_said("ipmitool") * 2, "2 power readings"),
        (_said("ipmitool").split("    Power reading state")[0], "0 states"),
        (_said("ipmitool") + _said("ipmi-dcmi"), "2 power readings and 2 states"),
        ("x" * 70_000, "longer than 65536 bytes"),
        (_said("ipmitool") + "\n" * 70_000, "longer than 65536 bytes"),
    ],
)
def test_nonsense_is_no_reading(node: _Node, text: str | bytes, named: str) -> None:
    refused = node.refusal(text)
    assert refused.reason == "parse"
    assert named in str(refused)
    assert "\x1b" not in str(refused)
    assert len(str(refused)) < 1000


def test_bytes_that_are_not_utf8_beside_a_reading_do_no_harm(node: _Node) -> None:
    node.write(b"\xe9\xff\n" + _said("ipmitool").encode())
    assert values_of(node.open()) == {_power(): 220}


@given(
    st.lists(
        st.sampled_from(
            (
                *("Instantaneous power reading", "Current Power", "Power reading state is"),
                *("Power Measurement", "activated", "Active", "0", "7", "65535", "Watts"),
                *(": ", " ", "\n", "\r"),
            )
        )
        | st.text(max_size=3)
    )
)
def test_whatever_is_said_there_is_a_sensible_reading_or_an_error_of_ours(words: list[str]) -> None:
    with contextlib.suppress(ReadError, Unavailable):
        assert 0 < watts_in("".join(words), "here") < 65535


# The file


def test_a_reading_is_used_until_it_is_too_old_and_a_new_one_at_once(node: _Node) -> None:
    node.write(_said("ipmitool"))
    collector = node.open(max_age=90)
    node.clock.tick(90)
    assert values_of(collector) == {_power(): 220}
    node.clock.tick(1)
    with pytest.raises(ReadError) as old:
        list(collector.sample())
    assert old.value.reason == "timeout"
    assert "91 s ago" in str(old.value)
    assert "telemetryd-ipmi.timer" in str(old.value)
    node.write(_said("ipmitool").replace("220", "230"))
    assert values_of(collector) == {_power(): 230}


def test_a_reading_from_the_future_is_not_used(node: _Node) -> None:
    node.write(_said("ipmitool"))
    collector = node.open()
    node.clock.step_wall(-3600)
    with pytest.raises(ReadError) as ahead:
        list(collector.sample())
    assert ahead.value.reason == "invalid"
    assert "3600 s ahead of the clock" in str(ahead.value)


def test_an_old_file_at_the_start_is_a_fault_and_no_reason_not_to_open(node: _Node) -> None:
    node.write(_said("ipmitool"), age=1000)
    collector = node.open()
    with pytest.raises(ReadError):
        list(collector.sample())


def test_without_the_file_the_remedy_is_the_command_that_enables_the_timer(node: _Node) -> None:
    with pytest.raises(Unavailable) as gone:
        node.open()
    assert str(node.file) in gone.value.why
    assert gone.value.remedy == "systemctl enable --now telemetryd-ipmi.timer"


def test_a_file_that_vanishes_makes_it_unavailable_and_one_that_comes_back_is_read(
    node: _Node,
) -> None:
    node.write(_said("ipmi-dcmi"))
    collector = node.open()
    node.file.unlink()
    with pytest.raises(Unavailable, match="enable --now"):
        list(collector.sample())
    node.write(_said("ipmi-dcmi"))
    assert values_of(collector) == {_power(): 220}


@contextlib.contextmanager
def _nobody() -> Iterator[None]:
    """Root may read anything, so be somebody else for a while."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_file_that_may_not_be_read_is_named_with_the_remedy(node: _Node) -> None:
    node.write(_said("ipmitool"))
    node.file.chmod(0)
    with _nobody(), pytest.raises(Unavailable, match="Permission denied") as closed:
        node.open()
    assert str(node.file) in closed.value.why
    assert "group telemetryd" in closed.value.remedy


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_waited_for(node: _Node, make) -> None:
    make(node.file)
    collector = node.open()
    with pytest.raises(ReadError, match="no regular file") as refused:
        list(collector.sample())
    assert refused.value.reason == "invalid"


def test_a_link_to_nowhere_and_a_folder_that_is_none_are_no_surprise(node: _Node) -> None:
    node.file.symlink_to(node.file)
    collector = node.open()
    with pytest.raises(ReadError, match="symbolic links") as refused:
        list(collector.sample())
    assert refused.value.reason == "io"


def test_many_samples_keep_no_file_open(node: _Node) -> None:
    node.write(_said("ipmitool"))
    collector = node.open()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        node.write(_said("ipmitool"))
        values_of(collector)
        node.write("x")
        with pytest.raises(ReadError):
            values_of(collector)
    assert len(os.listdir("/proc/self/fd")) == before


# The configuration


def test_an_operator_can_say_that_the_board_leaves_gpus_out(node: _Node) -> None:
    node.write(_said("ipmitool"))
    collector = node.open(boundary="subcomponent")
    assert values_of(collector) == {_power(boundary="subcomponent"): 220}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": "bmc1"}, "a host needs username and password_file"),
        ({"host": "bmc1", "username": "reader"}, "a host needs username and password_file"),
        ({"username": "reader"}, "are for a host"),
        ({"password_file": "/etc/telemetryd/bmc"}, "are for a host"),
        (
            {"host": "b", "username": "r", "password_file": "/p", "file": "/run/power"},
            "not both",
        ),
        ({"host": "-v", "username": "r", "password_file": "/p"}, "match pattern"),
        ({"host": "node[1-9]", "username": "r", "password_file": "/p"}, "match pattern"),
        ({"host": "a,b", "username": "r", "password_file": "/p"}, "match pattern"),
        ({"host": "b", "username": "a\nb", "password_file": "/p"}, "match pattern"),
        ({"interval": "1s"}, "greater than or equal to 5"),
        ({"cipher_suite": 0}, "greater than or equal to 1"),
        ({"boundary": "component"}, "'enclosing' or 'subcomponent'"),
        ({"timeout": "10s"}, "less than or equal to"),
        ({"password": "secret"}, "Extra inputs"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        IpmiConfig.model_validate(settings)


def test_closing_twice_is_safe(node: _Node) -> None:
    node.write(_said("ipmitool"))
    collector = node.open()
    collector.close()
    collector.close()
