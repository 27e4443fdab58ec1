"""The daemon's own counters and gauges."""

from __future__ import annotations

import logging

from telemetryd.instruments import (
    EXPORTER_BLOCKED,
    EXPORTER_POINTS,
    RELOAD_SUCCESSFUL,
    SPOOL_RECORDS,
    Instruments,
)
from telemetryd.log import QuietLog


def _shown(instruments: Instruments) -> dict[str, float]:
    return {repr(series): value for series, value in instruments.points()}


def test_gauges_of_a_destination_that_is_no_more_go_and_its_counters_stay() -> None:
    instruments = Instruments(QuietLog(logging.getLogger("test")))
    instruments.set(RELOAD_SUCCESSFUL, to=1)
    for name in ("a", "b"):
        instruments.set(SPOOL_RECORDS, name, to=7)
        instruments.set(EXPORTER_BLOCKED, name, "missing", to=1)
        instruments.count(EXPORTER_POINTS, name, by=3)
    instruments.forget("destination", "a")
    shown = _shown(instruments)
    assert {name for name in shown if "destination" in name} == {
        'telemetryd_exporter_points_total{destination="a"}',
        'telemetryd_exporter_points_total{destination="b"}',
        'telemetryd_spool_records{destination="b"}',
        'telemetryd_exporter_blocked{destination="b",reason="missing"}',
    }
    assert shown["telemetryd_config_last_reload_successful{}"] == 1
    instruments.set(SPOOL_RECORDS, "a", to=2)
    assert _shown(instruments)['telemetryd_spool_records{destination="a"}'] == 2
