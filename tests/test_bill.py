"""What the energy cost: facility energy, money and carbon, each only when configured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.energy_feed import NODE, Feed, power

from telemetryd.derivation import EnergyConfig
from telemetryd.metric import Point

KWH = 3.6e6
FACILITY = "telemetryd_node_facility_energy_joules_total{}"
COST = 'telemetryd_node_energy_cost_total{currency="EUR"}'
CARBON = "telemetryd_node_carbon_grams_total{}"


def hours(feed: Feed, count: float) -> dict[str, float]:
    """A node of 1 kW."""

    def bmc() -> list[Point]:
        return [power("redfish", 1000)]

    for _ in range(round(count * 120)):
        feed.clock.tick(30)
        feed.give(bmc())
    return feed.values


def test_without_a_price_there_is_no_cost() -> None:
    values = hours(Feed(), 1)
    assert NODE in values
    assert not {FACILITY, COST, CARBON} & values.keys()


def test_cost_and_carbon_are_those_of_the_energy() -> None:
    feed = Feed(EnergyConfig(price_per_kwh=0.25, carbon_grams_per_kwh=400))
    values = hours(feed, 10)
    kwh = values[NODE] / KWH
    assert kwh == pytest.approx(10, rel=0.01)
    assert values[COST] == pytest.approx(0.25 * kwh)
    assert values[CARBON] == pytest.approx(400 * kwh)
    assert FACILITY not in values


def test_a_pue_counts_for_all_of_it() -> None:
    feed = Feed(EnergyConfig(pue=1.5, price_per_kwh=0.2, carbon_grams_per_kwh=100))
    values = hours(feed, 2)
    assert values[FACILITY] == pytest.approx(1.5 * values[NODE])
    assert values[COST] == pytest.approx(0.2 * 1.5 * values[NODE] / KWH)
    assert values[CARBON] == pytest.approx(100 * 1.5 * values[NODE] / KWH)


def test_the_currency_is_a_label() -> None:
    values = hours(Feed(EnergyConfig(price_per_kwh=0.1, currency="CHF")), 0.1)
    assert 'telemetryd_node_energy_cost_total{currency="CHF"}' in values


def test_a_price_of_nothing_is_a_price() -> None:
    assert hours(Feed(EnergyConfig(price_per_kwh=0)), 1)[COST] == 0


def test_a_price_that_another_program_writes_holds_from_when_it_is_read(tmp_path: Path) -> None:
    price, carbon = tmp_path / "price", tmp_path / "carbon"
    price.write_text("0.2\n")
    carbon.write_text(" 300 ")
    feed = Feed(EnergyConfig(price_file=str(price), carbon_file=str(carbon)))
    feed.balance.refresh()
    first = hours(feed, 10)
    price.write_text("0.5")
    feed.balance.refresh()
    second = hours(feed, 10)
    kwh = (second[NODE] - first[NODE]) / KWH
    assert first[COST] == pytest.approx(0.2 * first[NODE] / KWH)
    assert second[COST] - first[COST] == pytest.approx(0.5 * kwh)
    assert second[CARBON] == pytest.approx(300 * second[NODE] / KWH)


def test_until_the_file_is_there_nothing_costs_anything(tmp_path: Path) -> None:
    price = tmp_path / "price"
    feed = Feed(EnergyConfig(price_file=str(price)))
    feed.balance.refresh()
    assert COST not in hours(feed, 1)
    price.write_text("1")
    feed.balance.refresh()
    values = hours(feed, 1)
    assert values[COST] == pytest.approx(1, rel=0.02), "not what came before"


def test_the_configured_price_holds_until_the_file_is_there(tmp_path: Path) -> None:
    feed = Feed(EnergyConfig(price_per_kwh=0.3, price_file=str(tmp_path / "price")))
    feed.balance.refresh()
    values = hours(feed, 1)
    assert values[COST] == pytest.approx(0.3 * values[NODE] / KWH)


@pytest.mark.parametrize(
    "content",
    [b"", b"cheap", b"-0.3", b"nan", b"inf", b"\xff\xfe", b"0,31", b"0.3 EUR", b"1" * 500],
)
def test_a_file_that_makes_no_sense_leaves_the_last_price_and_is_logged_once(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    price = tmp_path / "price"
    price.write_text("0.2")
    feed = Feed(EnergyConfig(price_file=str(price)))
    feed.balance.refresh()
    price.write_bytes(content)
    for _ in range(3):
        feed.balance.refresh()
    values = hours(feed, 1)
    assert values[COST] == pytest.approx(0.2 * values[NODE] / KWH)
    assert caplog.text.count("cannot use") == 1
    assert str(price) in caplog.text


def test_a_file_that_vanishes_leaves_the_last_price_and_is_logged_each_time_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    price = tmp_path / "price"
    feed = Feed(EnergyConfig(price_file=str(price)))
    for _ in range(2):
        price.write_text("0.2")
        feed.balance.refresh()
        price.unlink()
        feed.balance.refresh()
        feed.balance.refresh()
    values = hours(feed, 1)
    assert values[COST] == pytest.approx(0.2 * values[NODE] / KWH)
    assert caplog.text.count("cannot use") == 2


def test_a_pipe_is_not_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    Feed(EnergyConfig(price_file=str(pipe))).balance.refresh()
    assert "cannot use" in caplog.text


def test_the_budget_is_a_utilization_with_its_peak_and_none_while_the_meter_is_silent() -> None:
    feed = Feed(EnergyConfig(budget_watts=2000, estimate=False))
    values = hours(feed, 1)
    labels = '{resource="power",device="all"}'
    assert values[f"telemetryd_utilization_ratio{labels}"] == 0.5
    assert values[f"telemetryd_utilization_peak_ratio{labels}"] == 0.5
    observed = values[f"telemetryd_utilization_observed_seconds_total{labels}"]
    assert observed == pytest.approx(3570)
    assert values[f"telemetryd_utilization_seconds_total{labels}"] == pytest.approx(observed / 2)
    feed.clock.tick(75)
    feed.give([power("redfish", 0)])
    assert f"telemetryd_utilization_ratio{labels}" not in feed.values
    feed.clock.tick(75)
    values = feed.give([power("redfish", 1000)])
    assert values[f"telemetryd_utilization_ratio{labels}"] == 0.5
    assert values[f"telemetryd_utilization_observed_seconds_total{labels}"] == observed, "a gap"


def test_without_a_budget_there_is_no_utilization() -> None:
    assert not any("utilization" in name for name in hours(Feed(), 1))
