"""The redfish collector on resources recorded from real BMCs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.clock import FakeClock
from support.redfish_server import RedfishServer, Tree, serving
from support.trees import RECORDED, named

from telemetryd.collectors.redfish import Redfish, RedfishConfig
from telemetryd.errors import ReadError
from telemetryd.host import Host

ROOT = "/redfish/v1"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _recorded(name: str) -> Tree:
    """What was recorded of chassis 1, behind a service root and a chassis that were not."""
    folder: Path = RECORDED / "redfish" / name
    if not folder.is_dir():
        pytest.skip(f"the recorded trees are not here: {folder}")
    documents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    chassis = f"{ROOT}/Chassis/1"
    links = {one["Id"]: {"@odata.id": one["@odata.id"]} for one in documents}
    return {
        ROOT: {"RedfishVersion": "1.6.0", "Chassis": {"@odata.id": f"{ROOT}/Chassis"}},
        f"{ROOT}/Chassis": {"Members": [{"@odata.id": chassis}]},
        chassis: {"Id": "1", "ChassisType": "RackMount", **links},
        **{one["@odata.id"]: one for one in documents},
    }


def _collector(stack: ExitStack, resources: Tree) -> Redfish:
    bmc = RedfishServer(resources)
    bmc.needs_login = False
    stack.enter_context(serving(bmc))
    collector = Redfish(RedfishConfig(url=bmc.url), Host(clock=FakeClock()))
    stack.callback(collector.close)
    return collector


def test_what_hpe_says_is_consumed_is_what_its_supplies_give_and_counted_once(
    stack: ExitStack,
) -> None:
    collector = _collector(stack, _recorded("hpe"))
    values = named(collector.sample())
    assert values == {
        f'telemetryd_power_watts{{source="redfish",domain="psu_output",device="{device}",'
        f'boundary="enclosing"}}': watts
        for device, watts in enumerate((222, 200, 86, 57))
    }
    assert sum(values.values()) == 565
    assert any("565 W = 222 + 200 + 86 + 57" in remark for remark in collector.remarks())


def test_hpe_without_outputs_of_its_supplies_gives_the_sum_of_them(stack: ExitStack) -> None:
    resources = _recorded("hpe")
    for supply in resources[f"{ROOT}/Chassis/1/Power"]["PowerSupplies"]:
        del supply["LastPowerOutputWatts"]
    ((series, watts),) = _collector(stack, resources).sample()
    assert (series.labels, watts) == (("redfish", "psu_output", "1", "enclosing"), 565)


def test_a_supermicro_x10_that_does_not_measure_gives_nothing(stack: ExitStack) -> None:
    collector = _collector(stack, _recorded("supermicro_x10"))
    points = []
    with pytest.raises(ReadError, match="0 W of a machine that runs") as error:
        points.extend(collector.sample())
    assert error.value.reason == "invalid"
    assert not points
