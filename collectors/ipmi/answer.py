"""What `ipmitool dcmi power reading` and `ipmi-dcmi --get-system-power-statistics` print.

Both print whole watts, in English, whatever the locale, and a state: whether the BMC measures at
all. A board that does not know says 0 W, or goes on saying what it last knew with the state off.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from telemetryd.errors import ReadError, Unavailable

_READING = re.compile(
    r"^[ \t]*((?:Instantaneous power reading|Current Power)[ \t]*:[ \t]*(.*?))[ \t\r]*$",
    re.MULTILINE,
)
_STATE = re.compile(
    r"^[ \t]*((?:Power reading state is|Power Measurement)[ \t]*:[ \t]*(.*?))[ \t\r]*$",
    re.MULTILINE,
)
_WATTS = re.compile(r"([0-9]{1,5}) Watts")
_ACTIVE = frozenset({"activated", "Active"})
_NOT_ACTIVE = frozenset({"deactivated", "Not Available"})
# All bits set, in a field of 16.
_NO_POWER = 0xFFFF


class _Complaint(NamedTuple):
    """What a program says (a regular expression), under what to count it, what to do about it."""

    says: str
    reason: str
    remedy: str


# Words of ipmitool 1.8.19 and FreeIPMI 1.6.10.
_NO_DCMI = _Complaint(
    r"because: Invalid command|command invalid or unsupported",
    "unsupported",
    "this board offers no power by DCMI; see what its Redfish offers",
)
# The first that is found decides.
_COMPLAINTS = (
    _NO_DCMI,
    _Complaint(
        r"RAKP 2 HMAC is invalid|(password|username|k_g) invalid|error : [Uu]nauthorized name",
        "permission",
        "correct username and password_file; cipher_suite may be wrong too",
    ),
    _Complaint(
        r"Insufficient privilege|privilege level (insufficient|cannot be)|error : .*(priv|role)",
        "permission",
        "give the user that privilege on the BMC's LAN channel, or set privilege",
    ),
    _Complaint(
        r"is not what we requested|cipher suite id unavailable|error : .*[Cc]ipher",
        "unsupported",
        "set cipher_suite to one that the BMC allows: 17, or 3 on an old one",
    ),
    _Complaint(r"Address lookup for .* failed|invalid hostname", "missing", "correct host"),
    _Complaint(
        r"no response from RAKP 1|password verification timeout",
        "timeout",
        "the BMC answers, but not to this user: correct username and password_file",
    ),
    _Complaint(
        r"Get Auth Capabilities error|Unable to establish|(session|connection) timeout"
        r"|ipmi 2.0 unavailable|Unable to get DCMI information",
        "timeout",
        "see that the BMC can be reached and has IPMI over LAN (lanplus) switched on",
    ),
    _Complaint(
        r"Could not open device at|device not found|device not supported",
        "missing",
        "load the driver: modprobe -a ipmi_si ipmi_devintf",
    ),
    _Complaint(
        r"no answer from the BMC within",  # read-ipmi-power.sh's
        "timeout",
        "the BMC or its driver hangs: see the kernel's log for ipmi_si",
    ),
    _Complaint(r"neither ipmitool nor ipmi-dcmi", "missing", "apt install ipmitool"),
    _Complaint(
        r"DCMI request failed|ipmi_cmd_dcmi_get_power_reading|(BMC|driver) (busy|timeout)",
        "io",
        "if it goes on, restart the BMC",
    ),
)


def watts_in(text: str, where: str) -> int:
    """The power that either program printed. `where` is for errors.

    Raises Unavailable if the BMC has no power reading at all, ReadError for all else that is none.
    """
    readings, states = _READING.findall(text), _STATE.findall(text)
    if not readings and not states:
        raise _complaint(text, where)
    if len(readings) != 1 or len(states) != 1:
        raise ReadError(
            "parse",
            f"{where}: {len(readings)} power readings and {len(states)} states, not one of each",
        )
    (line, reading), (state_line, state) = readings[0], states[0]
    if state in _NOT_ACTIVE:
        raise ReadError("invalid", f"{where}: the BMC does not measure now: {_shown(state_line)}")
    if state not in _ACTIVE:
        raise ReadError("parse", f"{where}: no state of a meter: {_shown(state_line)}")
    match = _WATTS.fullmatch(reading)
    if match is None:
        raise ReadError("parse", f"{where}: no power in whole watts: {_shown(line)}")
    watts = int(match[1])
    if watts == 0 or watts >= _NO_POWER:
        raise ReadError("invalid", f"{where}: no machine draws that: {_shown(line)}")
    return watts


def complaint_in(text: str) -> str:
    """The line in which a program says what is wrong, and the remedy; empty if there is none."""
    found = _find(text)
    return "" if found is None else f"{_shown(found[0])}; {found[1].remedy}"


def _complaint(text: str, where: str) -> ReadError | Unavailable:
    found = _find(text)
    if found is not None:
        line, complaint = found
        if complaint is _NO_DCMI:
            return Unavailable(f"{where}: {_shown(line)}", complaint.remedy)
        return ReadError(complaint.reason, f"{where}: {_shown(line)}; {complaint.remedy}")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return ReadError("parse", f"{where}: it says nothing")
    return ReadError("parse", f"{where}: no power reading, but {_shown(lines[0])}")


def _find(text: str) -> tuple[str, _Complaint] | None:
    for complaint in _COMPLAINTS:
        if found := re.search(rf"^.*(?:{complaint.says}).*$", text, re.MULTILINE):
            return found[0], complaint
    return None


def _shown(line: str) -> str:
    """Fit for a log: short, nothing unprintable."""
    return repr(line.strip()[:200])
