"""Redfish: what the BMC measures, as meters."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from telemetryd.collector import Collector
from telemetryd.collectors.redfish.rounds import PATIENCE_S, SHARE, Round, Rounds
from telemetryd.collectors.redfish.settings import RedfishConfig
from telemetryd.errors import Unavailable
from telemetryd.host import Host
from telemetryd.meters import ENERGY, POWER
from telemetryd.metric import Point

if TYPE_CHECKING:
    from telemetryd.collectors.redfish.bmc import Bmc

log = logging.getLogger("telemetryd.collectors")


class Redfish(Collector):
    """Watts and joules of each power supply and of the machine, as its BMC measures them.

    An energy counter is published as it stands: a BMC that reboots may begin it again at 0,
    which is an ordinary reset. Raises Unavailable if no BMC is configured, if none answers, or if
    it has no meter of the machine.
    """

    Config = RedfishConfig
    metrics = (ENERGY, POWER)
    may_block = True

    def __init__(self, config: RedfishConfig, host: Host) -> None:
        super().__init__(config, host)
        if config.url is None:
            raise Unavailable(
                "no BMC is configured", "set collectors.redfish.url, such as https://10.0.0.7"
            )
        # urllib3 and TLS cost 5 MiB, which only those pay who have a BMC to ask.
        from telemetryd.collectors.redfish.bmc import Bmc  # noqa: PLC0415

        self._bmc: Bmc = Bmc(config, host, config.interval * SHARE)
        self._rounds = Rounds(
            self._bmc.read, self._bmc.close, self._bmc.abort, config.interval, host.clock
        )
        self._open()
        _warn(config)

    def sample(self) -> Iterator[Point]:
        done: Round = self._rounds.take()
        for error, what in done.faults:
            self.fault(error, what)
        yield from done.points
        if done.error is not None:
            raise done.error

    def remarks(self) -> Iterable[str]:
        return self._bmc.remarks

    def close(self) -> None:
        """Log out and end. Returns soon, even if the BMC does not answer."""
        self._bmc.stop()
        self._rounds.close()

    def _open(self) -> None:
        """Wait for the first round. One that is slow, or is not let in, is no reason to give up:
        its samples say so."""
        done = self._rounds.first()
        if done is None and not self._bmc.is_reached:
            self.close()
            raise Unavailable(
                f"no answer from {self._bmc.url} within {PATIENCE_S:g} s",
                "see that the BMC is up and reachable from here, or correct collectors.redfish.url",
            )
        if done is not None and (gone := self._bmc.why_unavailable(done.error)) is not None:
            self.close()
            raise gone from done.error


def _warn(config: RedfishConfig) -> None:
    """Say once what an operator may not have meant."""
    if (config.url or "").startswith("http:") and config.username is not None:
        log.warning('msg="the password travels in the clear" collector=redfish url=%s', config.url)
    elif not config.verify:
        log.warning('msg="the certificate is not checked" collector=redfish url=%s', config.url)
