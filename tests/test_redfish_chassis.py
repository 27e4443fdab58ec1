"""Which of a BMC's chassis the redfish collector takes for the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from support.redfish_reader import ROOT, Machine, joules, watts
from support.redfish_server import Tree, tree

from telemetryd.errors import Unavailable

Make = Callable[..., Machine]


@pytest.fixture
def machine() -> Iterator[Make]:
    with ExitStack() as stack:
        yield lambda resources, **config: Machine(stack, resources, **config)


def test_the_parts_left_out_are_named_to_the_operator(machine: Make) -> None:
    here = machine("hgx")
    (remark,) = here.collector.remarks()
    assert remark.startswith("chassis Chassis_0 is taken for the machine; left out: HGX_Chassis_0")


def test_no_part_is_even_asked_for_its_power(machine: Make) -> None:
    here = machine("hgx")
    here.values()
    assert not [path for path in here.bmc.paths() if "HGX" in path and "Metrics" in path]


def test_a_part_that_is_chosen_is_a_subcomponent(machine: Make) -> None:
    here = machine("hgx", chassis=["HGX_Chassis_0"])
    assert here.values() == {
        watts("part", "HGX_Chassis_0", "subcomponent"): 4200,
        joules("part", "HGX_Chassis_0", "subcomponent"): 987654321,
    }
    assert not [path for path in here.bmc.paths() if "GPU" in path]


def test_a_baseboard_that_stands_for_itself_is_no_machine(machine: Make) -> None:
    resources = tree("hgx")
    del resources[f"{ROOT}/Chassis/Chassis_0"], resources[f"{ROOT}/Chassis/PCIeSwitch_0"]
    with pytest.raises(Unavailable, match="no power reading of a machine in HGX_Chassis_0"):
        machine(resources)


def test_the_only_chassis_is_the_machine_whatever_it_is_called(machine: Make) -> None:
    for kind in ("Enclosure", "Module", None):
        resources = tree("older")
        resources[f"{ROOT}/Chassis/System.Embedded.1"]["ChassisType"] = kind
        assert watts("system", "System.Embedded.1") in machine(resources).values()


def test_a_part_does_not_stand_in_for_a_machine_whose_meters_are_silent(machine: Make) -> None:
    resources = tree("hgx")
    main = f"{ROOT}/Chassis/Chassis_0"
    resources[f"{main}/EnvironmentMetrics"]["PowerWatts"]["Reading"] = None
    del resources[f"{main}/PowerSubsystem"]
    with pytest.raises(Unavailable, match="no power reading of a machine"):
        machine(resources)
    del resources[f"{main}/EnvironmentMetrics"]["PowerWatts"]
    assert machine(resources).values() == {watts("system", "PCIeSwitch_0"): 45}


def test_of_several_machines_one_has_to_be_chosen(machine: Make) -> None:
    with pytest.raises(Unavailable) as gone:
        machine("blades")
    assert "Blade1, Blade2" in gone.value.why
    assert "collectors.redfish.chassis" in gone.value.remedy
    assert machine("blades", chassis=["Blade2"]).values() == {watts("system", "Blade2"): 390}


def test_chassis_of_one_system_are_parts_of_one_machine(machine: Make) -> None:
    resources = tree("blades")
    for blade in ("Blade1", "Blade2"):
        links = resources[f"{ROOT}/Chassis/{blade}"]["Links"]
        links["ComputerSystems"] = [{"@odata.id": f"{ROOT}/Systems/both"}]
    assert machine(resources).values() == {
        watts("system", "Blade1"): 410,
        watts("system", "Blade2"): 390,
    }


def _two_chassis(**links: object) -> Tree:
    """The older machine, and beside it a chassis that says nothing of their relation."""
    resources = tree("older")
    path = f"{ROOT}/Chassis/Sidecar"
    resources[f"{ROOT}/Chassis"]["Members"].insert(0, {"@odata.id": path})
    resources[path] = {"Id": "Sidecar", "Power": {"@odata.id": f"{path}/Power"}}
    resources[f"{path}/Power"] = {"PowerControl": [{"PowerConsumedWatts": 77}]}
    resources[f"{ROOT}/Chassis/System.Embedded.1"]["Links"] = links
    return resources


def test_a_chassis_with_supplies_stands_for_those_without(machine: Make) -> None:
    values = machine(_two_chassis()).values()
    assert values[watts("system", "System.Embedded.1")] == 288
    assert watts("system", "Sidecar") not in values


def test_the_chassis_of_a_system_stands_for_those_of_none(machine: Make) -> None:
    resources = _two_chassis(ComputerSystems=[{"@odata.id": f"{ROOT}/Systems/1"}])
    resources[f"{ROOT}/Chassis/System.Embedded.1/Power"]["PowerSupplies"] = []
    assert machine(resources).values() == {watts("system", "System.Embedded.1"): 288}
    del resources[f"{ROOT}/Chassis/System.Embedded.1"]["Links"]
    with pytest.raises(Unavailable, match=r"Sidecar, System\.Embedded\.1"):
        machine(resources)


def test_an_unknown_chassis_is_refused_with_those_there_are(machine: Make) -> None:
    with pytest.raises(Unavailable, match=r"no chassis 2U.*there are 1U"):
        machine("newer", chassis=["2U"])


def test_chassis_that_contain_each_other_do_not_hang_the_search(machine: Make) -> None:
    resources = tree("blades")
    for blade, other in (("Blade1", "Blade2"), ("Blade2", "Blade1")):
        links = resources[f"{ROOT}/Chassis/{blade}"]["Links"]
        links["ContainedBy"] = {"@odata.id": f"{ROOT}/Chassis/{other}"}
    with pytest.raises(Unavailable, match="Blade1, Blade2"):
        machine(resources)


def test_a_chassis_that_is_broken_keeps_the_choice_open(machine: Make) -> None:
    resources = tree("hgx")
    resources[f"{ROOT}/Chassis/Chassis_0"] = b"<html>"
    here = machine(resources)
    assert "name this machine's in collectors.redfish.chassis" in here.fails()
    here.bmc.resources = tree("hgx")
    assert here.values()[watts("system", "Chassis_0")] == 5840
