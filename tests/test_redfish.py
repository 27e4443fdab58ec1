"""The redfish collector on trees of both generations: which readings, and what is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from support.redfish_reader import ROOT, Machine, joules, watts
from support.redfish_server import tree

from telemetryd.collectors.redfish import Redfish, RedfishConfig
from telemetryd.errors import Unavailable
from telemetryd.host import Host

Make = Callable[..., Machine]


@pytest.fixture
def machine() -> Iterator[Make]:
    with ExitStack() as stack:
        yield lambda resources, **config: Machine(stack, resources, **config)


NEWER = {
    watts("psu_input", "Power Supply Bay 1"): 374.5,
    watts("psu_input", "Power Supply Bay 2"): 362.0,
    watts("psu_output", "Power Supply Bay 1"): 350.0,
    watts("psu_output", "Power Supply Bay 2"): 338.25,
    joules("psu_input", "Power Supply Bay 1"): pytest.approx(325.675 * 3.6e6),
    joules("psu_input", "Power Supply Bay 2"): pytest.approx(301.5 * 3.6e6),
    watts("system", "1U"): 731.0,
    joules("system", "1U"): 2257200123.0,
}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ("newer", NEWER),
        (
            "older",
            {
                watts("psu_input", "PS1 Status"): 150.5,
                watts("psu_input", "PS2 Status"): 139,
                watts("psu_output", "PS1 Status"): 140,
                watts("psu_output", "PS2 Status"): 128,
                watts("system", "System.Embedded.1"): 288,
            },
        ),
        ("hpe-like", {watts("psu_output", "0"): 211, watts("psu_output", "1"): 191}),
        (
            "hgx",
            {
                watts("psu_input", "PSU0"): 2950,
                watts("psu_input", "PSU1"): 2910,
                watts("psu_output", "PSU0"): 2800,
                watts("psu_output", "PSU1"): 2770,
                watts("system", "Chassis_0"): 5840,
            },
        ),
    ],
)
def test_each_meter_of_the_machine_is_read_once(
    machine: Make, resources: str, expected: dict[str, float]
) -> None:
    here = machine(resources)
    assert here.values() == expected
    assert here.faults == []


def test_the_second_round_asks_only_for_what_has_readings_and_over_the_same_connection(
    machine: Make,
) -> None:
    here = machine("newer")
    here.values()
    before = len(here.bmc.asked)
    here.values()
    metrics = f"{ROOT}/Chassis/1U/PowerSubsystem/PowerSupplies"
    assert here.bmc.paths()[before:][:4] == [
        f"{metrics}/Bay1/Metrics",
        f"{metrics}/Bay2/Metrics",
        metrics,
        f"{ROOT}/Chassis/1U/EnvironmentMetrics",
    ]
    assert len({one.connection for one in here.bmc.asked}) == 1


def test_one_resource_is_all_that_an_older_bmc_is_asked_for(machine: Make) -> None:
    here = machine("older")
    here.values()
    before = len(here.bmc.asked)
    here.values()
    assert set(here.bmc.paths()[before:]) == {f"{ROOT}/Chassis/System.Embedded.1/Power"}


def test_the_same_series_are_the_same_objects_from_round_to_round(machine: Make) -> None:
    here = machine("newer")
    first, second = ([series for series, _ in here.collector.sample()] for _ in range(2))
    assert all(one is other for one, other in zip(first, second, strict=True))


# What is no reading


def test_zero_watts_of_a_machine_that_runs_is_refused(machine: Make) -> None:
    here = machine("zero-watts")
    assert here.fails().startswith("invalid: ")
    here.bmc.set(f"{ROOT}/Chassis/1/Power", "PowerControl", 0, "PowerConsumedWatts", to=214)
    assert here.values() == {watts("system", "1"): 214}


@pytest.mark.parametrize(
    ("value", "reason"),
    [("374.5", "parse"), (True, "parse"), ([374], "parse"), (-3, "invalid"), (10**400, "invalid")],
)
def test_what_is_no_number_is_refused_and_the_others_go_on(
    machine: Make, value: object, reason: str
) -> None:
    resources = tree("newer")
    path = f"{ROOT}/Chassis/1U/PowerSubsystem/PowerSupplies/Bay1/Metrics"
    resources[path]["InputPowerWatts"]["Reading"] = value
    here = machine(resources)
    expected = {key: one for key, one in NEWER.items() if key != next(iter(NEWER))}
    assert here.values() == expected
    assert [one for one, _ in here.faults] == [reason]
    assert path in here.faults[0][1]


@pytest.mark.parametrize("value", [None, 0, 0.0])
def test_an_idle_supply_is_absent_and_comes_back(machine: Make, value: object) -> None:
    resources = tree("newer")
    path = f"{ROOT}/Chassis/1U/PowerSubsystem/PowerSupplies/Bay2/Metrics"
    for key in ("InputPowerWatts", "OutputPowerWatts", "EnergykWh"):
        resources[path][key]["Reading"] = value
    here = machine(resources)
    assert here.values() == {key: one for key, one in NEWER.items() if "Bay 2" not in key}
    assert here.faults == []
    here.bmc.resources[path] = tree("newer")[path]
    assert here.values() == NEWER


def test_a_share_of_the_whole_is_not_taken_for_it_nor_a_rating_for_a_reading(
    machine: Make,
) -> None:
    here = machine("shares-and-ratings")
    assert here.values() == {watts("system", "1"): 333}
    assert [reason for reason, _ in here.faults] == ["invalid"]
    assert "900 W is more than the capacity of 750 W" in here.faults[0][1]


def test_nothing_but_null_is_said_to_be_no_reading(machine: Make) -> None:
    here = machine("older")
    here.values()
    power = here.bmc.resources[f"{ROOT}/Chassis/System.Embedded.1/Power"]
    power["PowerControl"][0]["PowerConsumedWatts"] = None
    for supply in power["PowerSupplies"]:
        supply.update(PowerInputWatts=None, PowerOutputWatts=None, LastPowerOutputWatts=None)
    assert "missing: " in here.fails()


def test_an_energy_counter_that_falls_is_published_as_it_stands(machine: Make) -> None:
    here = machine("newer")
    here.values()
    path = f"{ROOT}/Chassis/1U/EnvironmentMetrics"
    here.bmc.set(path, "EnergyJoules", "Reading", to=1234.5)
    assert here.values()[joules("system", "1U")] == 1234.5


def test_kilowatt_hours_serve_where_there_are_no_joules(machine: Make) -> None:
    resources = tree("newer")
    del resources[f"{ROOT}/Chassis/1U/EnvironmentMetrics"]["EnergyJoules"]
    assert machine(resources).values()[joules("system", "1U")] == pytest.approx(627 * 3.6e6)


def test_supplies_that_cannot_be_told_apart_are_counted(machine: Make) -> None:
    resources = tree("hpe-like")
    for supply in resources[f"{ROOT}/Chassis/1/Power"]["PowerSupplies"]:
        supply["MemberId"] = "0"
    assert machine(resources).values() == {
        watts("psu_output", "0"): 211,
        watts("psu_output", "0/2"): 191,
    }


# What changes


def test_a_supply_that_is_added_is_read_from_the_next_round_on(machine: Make) -> None:
    here = machine("older")
    here.values()
    supplies = here.bmc.resources[f"{ROOT}/Chassis/System.Embedded.1/Power"]["PowerSupplies"]
    supplies.insert(0, {"MemberId": "PSU.Slot.0", "Name": "PS0 Status", "PowerInputWatts": 99})
    # Positions have moved: nothing is read from this list.
    assert "a power supply was added or pulled" in here.fails()
    values = here.values()
    assert values[watts("psu_input", "PS0 Status")] == 99
    assert values[watts("psu_input", "PS1 Status")] == 150.5


def test_a_supply_that_is_pulled_is_gone_and_the_others_go_on(machine: Make) -> None:
    here = machine("newer")
    here.values()
    place = f"{ROOT}/Chassis/1U/PowerSubsystem/PowerSupplies"
    here.bmc.resources[place]["Members"].pop()
    del here.bmc.resources[f"{place}/Bay2"], here.bmc.resources[f"{place}/Bay2/Metrics"]
    expected = {key: one for key, one in NEWER.items() if "Bay 2" not in key}
    assert here.values() == expected
    assert {reason for reason, _ in here.faults} == {"missing"}
    here.faults.clear()
    assert here.values() == expected
    assert here.faults == []


def test_a_broken_resource_is_left_out_and_looked_at_again_later(machine: Make) -> None:
    resources = tree("newer")
    path = f"{ROOT}/Chassis/1U/EnvironmentMetrics"
    resources[path] = b"not json"
    here = machine(resources)
    values = here.values()
    assert len(values) == len(NEWER) - 2
    assert here.faults[0][0] == "parse"
    here.bmc.resources = tree("newer")
    here.clock.tick(600)
    assert here.values() == NEWER


def test_where_no_bmc_is_configured_nobody_pays_for_the_library() -> None:
    script = (
        "import sys, telemetryd.collectors.redfish as redfish\n"
        "print([m for m in ('urllib3', 'ssl', 'http.client') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_without_a_url_nothing_is_asked() -> None:
    with pytest.raises(Unavailable, match=r"set collectors\.redfish\.url"):
        Redfish(RedfishConfig(), Host())


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "bmc"},
        {"url": "ftp://bmc"},
        {"url": "https://user:secret@bmc"},
        {"url": "https://bmc/redfish/v1"},
        {"url": "https://bmc:99999"},
        {"url": "https://bmc", "username": "u"},
        {"url": "https://bmc", "password_file": "/etc/p"},
        {"interval": 4},
    ],
)
def test_a_configuration_that_cannot_work_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"url|username|interval|password"):
        RedfishConfig.model_validate(wrong)
