"""Bandwidth utilization = actual / total, worked out by hand and as laws over any traffic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import FakeClock
from support.trees import Bench, host_at, write_tree

from telemetryd.collectors.network import BYTES, INFO, SPEED, Network, NetworkConfig
from telemetryd.derivation import DerivedConfig
from telemetryd.derived import bandwidth
from telemetryd.derived.bandwidth import BandwidthUtilization, Link
from telemetryd.metric import Kind, Metric, Point, Unit

GIGABIT = 125e6


def bench(interval: float = 1.0) -> Bench:
    return Bench(BandwidthUtilization(DerivedConfig()), interval)


def nic(
    received: float | None,
    *,
    transmitted: float = 0,
    speed: float | None = GIGABIT,
    device: str = "eth0",
    physical: bool = True,
) -> list[Point]:
    """What the network collector says of one interface."""
    points: list[Point] = [(BYTES.at(device, "transmit"), transmitted)]
    if received is not None:
        points.append((BYTES.at(device, "receive"), received))
    points.append((INFO.at(device, "", "full", "up", "true" if physical else "false"), 1))
    if speed is not None:
        points.append((SPEED.at(device), speed))
    return points


def series(quantity: str, direction: str = "receive", device: str = "eth0") -> str:
    labels = f'link="network",device="{device}",direction="{direction}"'
    return f"telemetryd_bandwidth_{quantity}{{{labels}}}"


RATIO, RATE = series("utilization_ratio"), series("bytes_per_second")
CAPACITY, TOTAL = series("capacity_bytes_per_second"), series("bytes_total")
OVER = 'telemetryd_bandwidth_over_capacity_intervals_total{link="network"}'


def test_800_megabit_a_second_on_a_gigabit_link_are_08() -> None:
    b = bench()
    b.feed(nic(5_000_000_000, transmitted=7))
    values = b.feed(nic(5_100_000_000, transmitted=7))
    assert values == {
        TOTAL: 5_100_000_000,
        RATE: 1e8,
        CAPACITY: GIGABIT,
        RATIO: 0.8,
        series("bytes_total", "transmit"): 7,
        series("bytes_per_second", "transmit"): 0,
        series("capacity_bytes_per_second", "transmit"): GIGABIT,
        series("utilization_ratio", "transmit"): 0,
        OVER: 0,
    }


def test_the_rate_is_over_the_time_that_passed_and_not_over_the_interval() -> None:
    b = bench()
    b.feed(nic(0))
    assert b.feed(nic(100_000_000), after=2.5)[RATIO] == pytest.approx(0.32)


def test_a_step_of_the_wall_clock_changes_no_rate() -> None:
    b = bench()
    b.feed(nic(0))
    b.clock.step_wall(-3600)
    assert b.feed(nic(100_000_000))[RATIO] == 0.8


def test_the_first_reading_gives_bytes_and_capacity_but_no_rate() -> None:
    values = bench().feed(nic(100))
    assert (values[TOTAL], values[CAPACITY]) == (100, GIGABIT)
    assert not {RATE, RATIO} & values.keys()


def test_a_reset_gives_no_rate_for_that_interval_only() -> None:
    b = bench()
    b.feed(nic(10**12))
    values = b.feed(nic(1000))
    assert values[TOTAL] == 1000
    assert not {RATE, RATIO} & values.keys()
    assert b.feed(nic(1000 + 12_500_000))[RATIO] == pytest.approx(0.1)


def test_a_gap_gives_no_rate() -> None:
    b = bench()
    b.feed(nic(0))
    assert not {RATE, RATIO} & b.feed(nic(10**9), after=60).keys()


def test_a_port_that_comes_back_starts_anew_and_the_others_go_on() -> None:
    b = bench()
    other = "eth1"
    b.feed(nic(0) + nic(0, device=other))
    assert TOTAL not in b.feed(nic(1250, device=other))
    values = b.feed(nic(10**6) + nic(12_501_250, device=other))
    assert not {RATE, RATIO} & values.keys()
    assert values[series("utilization_ratio", device=other)] == pytest.approx(0.1)


def test_only_physical_ports_are_links() -> None:
    b = bench()
    for received in (0, 10**7):
        values = b.feed(nic(received) + nic(received, device="bond0", physical=False))
    assert RATIO in values
    assert not any("bond0" in name for name in values)


def test_an_unknown_speed_gives_bytes_and_rate_but_no_ratio() -> None:
    b = bench()
    b.feed(nic(0, speed=None))
    values = b.feed(nic(10**8, speed=None))
    assert (values[TOTAL], values[RATE]) == (10**8, 1e8)
    assert not {CAPACITY, RATIO} & values.keys()


@pytest.mark.parametrize("before", [None, GIGABIT / 10, GIGABIT * 10])
def test_a_link_that_changed_its_speed_has_no_ratio_for_that_interval(
    before: float | None,
) -> None:
    b = bench()
    b.feed(nic(0, speed=before))
    values = b.feed(nic(10**7))
    assert (values[RATE], values[CAPACITY], values[OVER]) == (1e7, GIGABIT, 0)
    assert RATIO not in values
    assert b.feed(nic(2 * 10**7))[RATIO] == pytest.approx(0.08)


def test_more_than_the_link_can_carry_is_counted_and_never_a_ratio() -> None:
    b = bench()
    b.feed(nic(0))
    values = b.feed(nic(130_000_000))
    assert (values[RATE], values[OVER]) == (1.3e8, 1)
    assert RATIO not in values
    values = b.feed(nic(130_000_000 + 125_000_000))
    assert (values[RATIO], values[OVER]) == (1.0, 1)


def test_a_collector_that_is_gone_is_forgotten() -> None:
    b = bench()
    b.feed(nic(0), collector="network")
    b.derivation.forget("network")
    b.derivation.forget("network")
    assert not {RATE, RATIO} & b.feed(nic(10**7), collector="network").keys()


def test_another_kind_of_link_is_one_row_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = ("device", "port")
    octets = Metric("fabric", "", Kind.COUNTER, Unit.BYTES, "", "", (*labels, "direction"))
    rate = Metric("fabric", "rate", Kind.GAUGE, Unit.BYTES_PER_SECOND, "", "", labels)
    link = Link("infiniband", octets, rate, device=labels)
    monkeypatch.setattr(bandwidth, "LINKS", (*bandwidth.LINKS, link))
    b = bench()
    for received in (0, 10**9):
        values = b.feed(
            [
                (octets.at("mlx5_0", "1", "receive"), received),
                (octets.at("mlx5_1", "1", "receive"), 0),
                (rate.at("mlx5_0", "1"), 5e10),
                *nic(received // 100),
            ]
        )
    fabric = 'link="infiniband",device="mlx5_0/1",direction="receive"'
    assert values[f"telemetryd_bandwidth_utilization_ratio{{{fabric}}}"] == 0.02
    assert values[f"telemetryd_bandwidth_bytes_total{{{fabric}}}"] == 10**9
    assert values[RATIO] == 0.08


def test_what_the_network_collector_reads_becomes_a_ratio(tmp_path: Path) -> None:
    header = (
        "Inter-| Receive | Transmit\n face |bytes packets errs drop fifo frame compressed multicast"
        "|bytes packets errs drop fifo colls carrier compressed\n"
    )
    net = "sys/class/net/eth0/"
    write_tree(
        tmp_path,
        {
            "proc/net/dev": header + " eth0: 0 0 0 0 0 0 0 0 50 0 0 0 0 0 0 0\n",
            net + "operstate": "up\n",
            net + "carrier_changes": "1\n",
            net + "speed": "1000\n",
            net + "device/vendor": "0x1af4\n",
        },
    )
    network = Network(NetworkConfig(), host_at(tmp_path, FakeClock()))
    b = bench()
    b.feed(list(network.sample()))
    write_tree(
        tmp_path,
        {"proc/net/dev": header + " eth0: 100000000 0 0 0 0 0 0 0 50 0 0 0 0 0 0 0\n"},
    )
    values = b.feed(list(network.sample()))
    assert values[RATIO] == 0.8
    assert values[series("utilization_ratio", "transmit")] == 0


@dataclass(frozen=True)
class Reading:
    """One tick of a port's life: None for what is not there."""

    after: float
    received: int | None
    speed: float | None


SPEEDS = st.sampled_from([None, 1.25e6, GIGABIT, 5e10])
LIVES = st.lists(
    st.builds(
        Reading,
        after=st.floats(0.01, 8),
        received=st.none() | st.integers(0, 2**64) | st.integers(0, 10**8),
        speed=SPEEDS,
    ),
    min_size=1,
    max_size=20,
)


@given(LIVES)
def test_whatever_happens_a_ratio_is_in_0_to_1_and_no_rate_is_negative(
    life: list[Reading],
) -> None:
    b = bench()
    over = 0
    before: Reading | None = None
    for now in life:
        values = b.feed(nic(now.received, speed=now.speed), after=now.after)
        assert all(value >= 0 for value in values.values())
        assert 0 <= values.get(RATIO, 0) <= 1
        assert values.get(TOTAL) == now.received
        known = before is not None and before.received is not None and now.received is not None
        grew = known and now.received >= before.received and now.after <= 3
        assert (RATE in values) == grew
        if RATIO in values:
            assert grew
            assert now.speed == before.speed is not None
            assert values[RATIO] * now.speed == pytest.approx(values[RATE])
        elif grew and now.speed is not None and now.speed == before.speed:
            assert values[RATE] > now.speed
            over += 1
        assert values[OVER] == over
        before = now


@given(
    st.lists(st.tuples(st.floats(0.05, 2.9), st.floats(0, 1)), min_size=1, max_size=30),
    st.integers(0, 2**63),
)
def test_bytes_over_capacity_is_the_mean_of_any_load_at_any_scrape_interval(
    load: list[tuple[float, float]], start: int
) -> None:
    b = bench()
    total = start
    values = b.feed(nic(total))
    begun_ns, weighted = b.clock.mono_ns(), 0.0
    for seconds, share in load:
        total += int(GIGABIT * seconds * share)
        before_ns = b.clock.mono_ns()
        values = b.feed(nic(total), after=seconds)
        assert RATIO in values or share > 0.999
        weighted += values.get(RATIO, share) * (b.clock.mono_ns() - before_ns) / 1e9
    elapsed = (b.clock.mono_ns() - begun_ns) / 1e9
    mean = (values[TOTAL] - start) / values[CAPACITY] / elapsed
    assert mean == pytest.approx(weighted / elapsed, abs=1e-6)
    truth = sum(seconds * share for seconds, share in load) / sum(s for s, _ in load)
    assert mean == pytest.approx(truth, abs=1e-6)
