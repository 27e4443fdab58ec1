"""The redfish collector and a BMC that is slow, broken or gone."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest
from support.clock import FakeClock
from support.redfish_reader import ROOT, Impatient, Open, Reader, eventually
from support.redfish_server import RedfishServer, Reply, serving, tree

from telemetryd.clock import Clock
from telemetryd.collectors.redfish.connection import LONGEST_ANSWER
from telemetryd.errors import Unavailable

METRICS = f"{ROOT}/Chassis/1U/EnvironmentMetrics"
SUPPLIES = f"{ROOT}/Chassis/1U/PowerSubsystem/PowerSupplies"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(500), "io"),
        (Reply(503), "io"),
        (Reply(429), "io"),
        (Reply(404), "missing"),
        (Reply(418), "invalid"),
        (Reply(200, b""), "parse"),
        (Reply(200, b"<html>starting</html>"), "parse"),
        (Reply(200, b"[1]"), "parse"),
        (Reply(200, b"[" * 100_000), "parse"),
        (Reply(200, b'{"PowerWatts": 7, "EnergyJoules": {}}'), "parse"),
        (Reply(200, b'{"PowerWatts": {"Reading": NaN}}'), "invalid"),
        (Reply(200, b" " * (LONGEST_ANSWER + 1)), "invalid"),
        (Reply(302, headers={"Location": f"{METRICS}"}), "invalid"),
        (Reply(302), "invalid"),
        (Reply(cut=True), "io"),
    ],
)
def test_one_broken_resource_is_left_to_the_others_and_comes_back(
    bmc: RedfishServer, reader: Open, reply: Reply, reason: str
) -> None:
    # The last that is asked for, so that the others are there whatever becomes of the connection.
    here = reader()
    assert len(here.values()) == 8
    bmc.replies[METRICS] = reply
    assert len(here.whatever()) == 6
    assert here.faults[0][0] == reason
    bmc.replies.clear()
    here.faults.clear()
    assert len(here.values()) == 8
    assert here.faults == []


def test_a_redirect_within_the_bmc_is_followed(bmc: RedfishServer, reader: Open) -> None:
    elsewhere = f"{METRICS}/Current"
    bmc.resources[elsewhere] = bmc.resources[METRICS]
    bmc.replies[METRICS] = Reply(308, headers={"Location": elsewhere})
    assert len(reader().values()) == 8


def test_a_redirect_to_another_host_is_not(
    stack: ExitStack, bmc: RedfishServer, reader: Open
) -> None:
    other = stack.enter_context(serving(RedfishServer(tree("newer"))))
    here = reader()
    here.values()
    bmc.replies[f"{SUPPLIES}/Bay1/Metrics"] = Reply(302, headers={"Location": other.url + METRICS})
    assert "set collectors.redfish.url to the address" in here.fails()
    assert other.asked == []


def test_a_resource_that_hangs_is_left_to_the_others(bmc: RedfishServer, reader: Open) -> None:
    here = reader(clock=Clock(), timeout=0.5, interval=5)
    assert len(here.values()) == 8
    bmc.replies[f"{SUPPLIES}/Bay1/Metrics"] = Reply(hang=True)
    assert len(here.values()) == 5
    assert [reason for reason, _ in here.faults] == ["timeout"]
    assert "collectors.redfish.timeout" in here.faults[0][1]


def test_an_answer_that_never_ends_is_cut_off_by_a_later_tick(
    bmc: RedfishServer, reader: Open
) -> None:
    here = reader(timeout=60)
    assert len(here.values()) == 8
    before = len(bmc.asked)
    bmc.replies[METRICS] = Reply(drip=True)
    assert isinstance(here.clock, FakeClock)
    # The round begins before its tick, and is past its deadline at the tick.
    here.clock.tick(29.9)
    eventually(lambda: METRICS in bmc.paths()[before:])
    assert len(here.whatever()) == 6
    assert here.faults[0][0] == "io"


def test_values_that_come_an_interval_late_are_none(bmc: RedfishServer, reader: Open) -> None:
    here = reader()
    here.values()
    before = len(bmc.asked)
    assert isinstance(here.clock, FakeClock)
    here.clock.tick(29.9)
    eventually(lambda: METRICS in bmc.paths()[before:])
    here.clock.tick(60)
    assert here.fails().startswith("timeout: ")
    assert len(here.values()) == 8


def test_a_bmc_that_no_packet_reaches_is_not_waited_for(stack: ExitStack) -> None:
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    # Nobody accepts: once the queue is full the kernel drops what comes, like a firewall.
    for _ in range(4):
        filler = stack.enter_context(socket.socket())
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(Unavailable, match=r"no answer from .* within 4 s"):
        Reader(url, None, Impatient(), timeout=60)


def test_a_bmc_that_is_reached_but_slow_is_there_and_fails(
    bmc: RedfishServer, reader: Open
) -> None:
    bmc.replies["/redfish/v1/"] = Reply(hang=True)
    assert reader(clock=Impatient(), timeout=60).fails().startswith("timeout: ")


def test_a_bmc_that_takes_long_to_look_through_has_no_values_until_then(
    bmc: RedfishServer, reader: Open
) -> None:
    bmc.replies[f"{ROOT}/Chassis"] = Reply(hang=True)
    here = reader(clock=Impatient(), timeout=60)
    assert here.fails().startswith("timeout: ")
    bmc.replies.clear()
    bmc.release()
    # Looked at, and then read: the last of the round.
    eventually(lambda: bmc.paths().count(METRICS) == 2)
    assert len(here.values()) == 8


# Not there


def test_a_bmc_that_does_not_listen_is_unavailable_with_the_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable) as gone:
            Reader(f"http://127.0.0.1:{taken.getsockname()[1]}", None, FakeClock())
    assert gone.value.why.endswith("cannot be reached: Connection refused")
    assert "reachable from here" in gone.value.remedy


def test_a_name_that_is_unknown_is_told_from_a_bmc_that_is_down() -> None:
    with pytest.raises(Unavailable, match=r"correct the name in collectors\.redfish\.url"):
        Reader("https://bmc.invalid", None, FakeClock())


def test_a_bmc_that_hangs_is_unavailable(bmc: RedfishServer) -> None:
    bmc.replies["/redfish/v1/"] = Reply(hang=True)
    with pytest.raises(Unavailable, match=r"no answer within 0\.5 s"):
        Reader(bmc.url, None, FakeClock(), timeout=0.5)


@pytest.mark.parametrize("reply", [Reply(404), Reply(200, b"<html>"), Reply(302)])
def test_what_is_no_bmc_is_said_to_be_none(bmc: RedfishServer, reply: Reply) -> None:
    bmc.replies["/redfish/v1/"] = reply
    with pytest.raises(Unavailable, match=r"collectors\.redfish\.url"):
        Reader(bmc.url, None, FakeClock())


def test_a_bmc_that_starts_while_we_do_is_waited_for(bmc: RedfishServer, reader: Open) -> None:
    bmc.replies["/redfish/v1/"] = Reply(503)
    here = reader()
    assert here.fails().startswith("io: ")
    bmc.replies.clear()
    assert len(here.values()) == 8
