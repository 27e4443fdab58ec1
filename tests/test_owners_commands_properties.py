"""Commands that are owners, whatever processes come, go, work, move and take other names."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cgroups import Cgroups
from support.watched_owners import JOB, NGINX, Watched, cpu_by_owner

from telemetryd.host import Ownership

USER = "user.slice/user-1000.slice"
_GROUPS = st.sampled_from([JOB, JOB.replace("7", "8"), NGINX, USER, "custom", ""])
_PIDS = st.integers(1, 5)
_NAMES = st.sampled_from(["python2", "python3", "bash"])
_EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), _PIDS, _NAMES, _GROUPS),
        st.tuples(st.just("work"), _PIDS, st.floats(0.0001, 3), st.none()),
        st.tuples(st.just("rename"), _PIDS, _NAMES, st.none()),
        st.tuples(st.just("move"), _PIDS, st.none(), _GROUPS),
        st.tuples(st.just("exit"), _PIDS, st.none(), st.none()),
        st.tuples(st.just("sample"), st.none(), st.none(), st.none()),
    ),
    max_size=16,
)


@settings(max_examples=60)
@given(_EVENTS)
def test_with_commands_too_all_owners_add_up_to_the_busy_time_and_none_falls(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int, object, str]]
) -> None:
    groups = Cgroups(tmp_path_factory.mktemp("machine") / "root")
    watched = Watched(groups, Ownership(commands=("python*",)))
    seen: dict[tuple[str, str], float] = {}
    added_up = busy = 0.0
    alive: set[int] = set()
    watched.sample()
    for event, pid, what, group in [*events, ("sample", 0, None, "")]:
        if event == "start" and pid not in alive:
            groups.make(group)
            groups.start(pid, str(what), group)
            alive.add(pid)
        elif event == "sample":
            now = cpu_by_owner(watched.sample())
            for owner, seconds in now.items():
                assert seconds >= seen.get(owner, 0)
                added_up += seconds - seen.get(owner, 0)
            seen = now
        elif pid in alive:
            if event == "work":
                assert isinstance(what, float)
                groups.work(pid, what)
                busy += what
            elif event == "rename":
                groups.change(pid, command=str(what))
            elif event == "move":
                groups.make(group)
                groups.change(pid, group=group)
            else:
                groups.exit(pid)
                alive.discard(pid)
    assert added_up == pytest.approx(busy, abs=0.011)
    assert watched.faults == []
