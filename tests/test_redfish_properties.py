"""Whatever a BMC says in place of a value, a round gives readings, faults or one clear error."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import FakeClock
from support.redfish_server import Tree, tree

from telemetryd.collectors.redfish import RedfishConfig
from telemetryd.collectors.redfish.bmc import Bmc
from telemetryd.collectors.redfish.connection import BmcError
from telemetryd.collectors.redfish.rounds import Round
from telemetryd.errors import REASONS, ReadError
from telemetryd.host import Host

NAMES = ("newer", "older", "hpe-like", "hgx", "blades", "shares-and-ratings", "zero-watts")
TREES = {name: tree(name) for name in NAMES}

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "12", "/", "//x/y", "/redfish/v1/Chassis", "HGX_", "\n", 10**400])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["@odata.id", "Reading", "Members", "Name", "Id", "Links"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


class _Resources:
    """The resources of a tree, without the network."""

    is_reached, is_basic = True, False

    def __init__(self, resources: Tree) -> None:
        self.resources = resources

    def begin(self, deadline_ns: int) -> Any:
        return self.get("/redfish/v1", deadline_ns)

    def get(self, path: str, deadline_ns: int) -> Any:
        found = self.resources.get(path.rstrip("/"))
        if not isinstance(found, dict):
            raise BmcError("missing" if found is None else "parse", path, "none")
        return copy.deepcopy(found)


def _places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path, *(place for key, one in inner for place in _places(one, (*path, key)))][
        not path :
    ]


def _put(resources: Tree, place: tuple[Any, ...], value: object) -> None:
    at: Any = resources
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value


def _read(bmc: Bmc) -> None:
    this = Round(0)
    failed: list[Exception] = []
    try:
        bmc.read(this)
    except ReadError as error:
        failed.append(error)
    failed += [error for error, _ in this.faults]
    assert all(isinstance(error, ReadError) and error.reason in REASONS for error in failed)
    assert len({series for series, _ in this.points}) == len(this.points), "a series twice"
    assert all(math.isfinite(value) and value > 0 for _, value in this.points)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_no_answer_of_a_bmc_gives_anything_but_readings_and_read_errors(
    name: str, data: st.DataObject
) -> None:
    resources = copy.deepcopy(TREES[name])
    bmc = Bmc(RedfishConfig(url="http://bmc"), Host(clock=FakeClock()), 24)
    bmc._session = _Resources(resources)  # type: ignore[assignment]
    if data.draw(st.booleans(), "sound at first"):
        _read(bmc)
    for _ in range(data.draw(st.integers(1, 3), "defects")):
        place = data.draw(st.sampled_from(_places(resources)), "place")
        _put(resources, place, data.draw(values, "value"))
    _read(bmc)
    _read(bmc)
