"""The destinations over HTTP, each called `there`, for what must hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from support.clock import FakeClock
from telemetryd.delivery.queue import Body
from telemetryd.exporters.influxdb import InfluxDBConfig
from telemetryd.exporters.remote_write import RemoteWriteConfig

if TYPE_CHECKING:
    from telemetryd.delivery.http import HttpDestination

# What is in a body makes no difference to them.
LINE = Body(b"m,host=a v=1 1\n", 1)

Connect = Callable[..., "HttpDestination"]


def remote_write(url: str, **config: object) -> HttpDestination:
    """Its address has something in it that is not to be repeated."""
    from telemetryd.exporters.remote_write_transport import Transport  # other tests need it not

    settings = RemoteWriteConfig(url=f"{url}/api/v1/write?key=s3cret", **config)
    return Transport("there", settings, FakeClock())


def influxdb(url: str, **config: object) -> HttpDestination:
    from telemetryd.exporters.influxdb_transport import Transport

    settings = InfluxDBConfig(url=url, bucket="b", **config)
    return Transport("there", settings, FakeClock())


@pytest.fixture(params=[remote_write, influxdb])
def connect(request: pytest.FixtureRequest) -> Connect:
    return request.param
