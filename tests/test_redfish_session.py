"""The redfish collector and a BMC that is guarded: sessions, passwords, reboots."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from support.clock import FakeClock
from support.redfish_reader import ROOT, Open, Reader, eventually
from support.redfish_server import PASSWORD, SESSIONS, RedfishServer, Reply, serving, tree

from telemetryd.errors import Unavailable

METRICS = f"{ROOT}/Chassis/1U/EnvironmentMetrics"


# The session


def test_one_session_serves_every_round_and_is_ended_at_the_close(
    bmc: RedfishServer, reader: Open
) -> None:
    here = reader()
    assert len(here.values()) == len(here.values()) == 8
    assert bmc.opened == 1
    logins = {one.login for one in bmc.asked if "Chassis" in one.path}
    assert logins == {"token1"}
    here.collector.close()
    here.collector.close()
    eventually(lambda: not bmc.tokens)
    assert bmc.paths("DELETE") == [f"{SESSIONS}/token1"]
    assert len({one.connection for one in bmc.asked}) == 1


def test_a_bmc_that_has_rebooted_is_logged_in_to_again(bmc: RedfishServer, reader: Open) -> None:
    here = reader()
    here.values()
    bmc.reboot()
    assert len(here.values()) == 8
    assert here.faults == []
    assert bmc.opened == 2


def test_a_bmc_that_goes_away_fails_and_is_looked_through_when_it_is_back(
    stack: ExitStack, password_file: Path
) -> None:
    bmc = RedfishServer(tree("newer"))
    with serving(bmc):
        here = Reader(bmc.url, password_file, FakeClock())
        stack.callback(here.collector.close)
        assert len(here.values()) == 8
        bmc.closes_connections = True
        here.values()
    assert here.fails().startswith("io: ")
    assert "see that the BMC is up" in here.fails()
    bmc.reboot()
    # It has come back with older firmware.
    bmc.resources = tree("older")
    with serving(bmc, port=int(bmc.url.rpartition(":")[2])):
        assert len(here.values()) == 5


def test_a_connection_that_the_bmc_closed_while_idle_is_opened_again(
    bmc: RedfishServer, reader: Open
) -> None:
    bmc.closes_connections = True
    here = reader()
    assert len(here.values()) == len(here.values()) == 8
    assert here.faults == []
    assert len({one.connection for one in bmc.asked}) > 5
    assert bmc.opened == 1


def test_a_session_is_ended_even_if_the_collector_does_not_open(
    stack: ExitStack, password_file: Path
) -> None:
    bmc = stack.enter_context(serving(RedfishServer(tree("blades"))))
    with pytest.raises(Unavailable, match="Blade1, Blade2"):
        Reader(bmc.url, password_file, FakeClock())
    eventually(lambda: bmc.opened == 1 and not bmc.tokens)


@pytest.mark.parametrize(
    "reply",
    [Reply(404), Reply(405), Reply(501), Reply(200), Reply(503, b'{"x": "SessionLimitExceeded"}')],
)
def test_a_bmc_without_sessions_gets_the_password_with_each_request(
    bmc: RedfishServer, reader: Open, reply: Reply
) -> None:
    bmc.session_reply = reply
    here = reader()
    assert len(here.values()) == 8
    assert {one.login[:6] for one in bmc.asked if "Chassis" in one.path} == {"Basic "}
    assert any("no session" in remark for remark in here.collector.remarks())


def test_a_bmc_that_is_still_starting_does_not_get_the_password_another_way(
    bmc: RedfishServer, reader: Open
) -> None:
    bmc.session_reply = Reply(503)
    here = reader()
    assert here.fails().startswith("io: ")
    assert not [one for one in bmc.asked if one.login]
    bmc.session_reply = None
    assert len(here.values()) == 8


# Not let in


def test_a_wrong_password_is_sent_once_until_the_file_is_another(
    bmc: RedfishServer, reader: Open, password_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    password_file.write_text("wrong secret\n")
    here = reader()
    said = [here.fails() for _ in range(3)]
    assert all(one.startswith("permission: ") and str(password_file) in one for one in said)
    assert len(bmc.paths("POST")) == 1
    password_file.write_text(f"{PASSWORD}\n")
    assert len(here.values()) == 8
    shown = " ".join([*said, caplog.text, *(what for _, what in here.faults)])
    assert "wrong secret" not in shown
    assert PASSWORD not in shown


def test_a_refused_password_is_tried_again_after_a_while(bmc: RedfishServer, reader: Open) -> None:
    bmc.password = "of tomorrow"
    here = reader()
    here.fails()
    bmc.password = PASSWORD
    assert "refuses the login" in here.fails()
    here.clock.tick(600)
    assert len(here.values()) == 8


def test_a_basic_password_that_is_refused_is_not_sent_again_either(
    bmc: RedfishServer, reader: Open
) -> None:
    bmc.session_reply = Reply(404)
    bmc.password = "another"
    here = reader()
    assert here.fails().startswith("permission: ")
    sent = len([one for one in bmc.asked if one.login])
    here.fails()
    assert len([one for one in bmc.asked if one.login]) == sent == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b"two\nlines\n", "it has more than a line"),
        (b"\xff\xfe", "it is not UTF-8"),
    ],
)
def test_a_password_file_that_cannot_be_used_is_named(
    reader: Open, password_file: Path, content: bytes | None, said: str
) -> None:
    password_file.unlink()
    if content is not None:
        password_file.write_bytes(content)
    here = reader()
    message = here.fails()
    assert f"{password_file}: {said}" in message
    assert "collectors.redfish.password_file" in message


def test_without_an_account_a_guarded_bmc_says_what_to_set(reader: Open) -> None:
    message = reader(login=False).fails()
    assert message.startswith("permission: ")
    assert "collectors.redfish.username" in message


def test_a_resource_that_may_not_be_read_is_left_to_the_others(
    bmc: RedfishServer, reader: Open
) -> None:
    here = reader()
    here.values()
    bmc.replies[METRICS] = Reply(403)
    assert len(here.values()) == 6
    assert here.faults[0][0] == "permission"
    assert "ReadOnly" in here.faults[0][1]
