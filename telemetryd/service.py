"""The daemon: builds everything from the configuration, reloads it, and stops in order.

The main thread runs an event loop with the HTTP endpoint, the signals, the systemd watchdog and
the guards of the lanes. Should that loop hang, WATCHDOG=1 stays out and systemd restarts us.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence

from apscheduler.schedulers.background import BackgroundScheduler

from telemetryd import notify, plugins
from telemetryd.batch import Batch
from telemetryd.config import Config, host_of
from telemetryd.errors import ConfigError, StartError, Unavailable
from telemetryd.exporter import PushExporter
from telemetryd.instruments import RELOAD_SUCCESSFUL, RELOAD_TIMESTAMP, WEB_REQUESTS, Instruments
from telemetryd.lane import Lane
from telemetryd.pipeline import Pipeline
from telemetryd.sampling import Sampling
from telemetryd.web.app import App
from telemetryd.web.server import WebServer

log = logging.getLogger("telemetryd")

# Hardware that was not there is looked for this often.
LOOK_AGAIN_S = 60
_GUARD_PAUSE_S = 0.05
# How soon a lane that was added is guarded; a guess.
_TEND_S = 5.0
# Together below the 10 s within which the daemon promises to be gone.
_STOP_LANES_S = 3.0
_STOP_EXPORTERS_S = 5.0


class Service:
    """One daemon. `load` reads the configuration anew; it raises ConfigError."""

    def __init__(self, load: Callable[[], Config]) -> None:
        self._load = load
        self._config = load()
        self._instruments = Instruments()
        self._pipeline = self._make_pipeline(self._config)
        self._sampling = Sampling(
            self._config, host_of(self._config.host), self._pipeline, self._instruments
        )
        self._exporters: list[PushExporter] = []
        self._app = App(self._live, self._is_ready)
        self._web: WebServer | None = None
        self._stop = asyncio.Event()
        self._guards: dict[Lane, asyncio.TimerHandle] = {}

    def run(self) -> None:
        """Run until SIGTERM or SIGINT. Raises StartError.

        Leaves through os._exit if a thread is stuck in a collector: nothing else gets past it.
        """
        ended = asyncio.run(self._main())
        log.info('msg="stopped" stuck_threads=%s', "no" if ended else "yes")
        if not ended:
            logging.shutdown()
            os._exit(0)

    async def _main(self) -> bool:
        loop = asyncio.get_running_loop()
        await self._listen(self._config)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(self._reload()))
        self._exporters = self._start_exporters(self._config)
        self._note_reload(successful=True)
        self._sampling.start()
        scheduler = BackgroundScheduler(timezone="UTC", executors={"default": _one_thread()})
        scheduler.add_job(self._sampling.look_again, "interval", seconds=LOOK_AGAIN_S)
        scheduler.start()
        self._tend()
        notify.ready()
        log.info('msg="started" listen=%s', self._web.address if self._web else "")
        await self._stop.wait()
        notify.stopping()
        scheduler.shutdown(wait=False)
        return await self._shut_down()

    async def _shut_down(self) -> bool:
        """Lanes first, then a last push of what they read, then the sensors and the endpoint."""
        for timer in self._guards.values():
            timer.cancel()
        ended = await asyncio.to_thread(self._sampling.stop, _STOP_LANES_S)
        await asyncio.to_thread(_stop_exporters, self._exporters)
        if self._web is not None:
            await self._web.stop()
        return ended

    # The endpoint

    async def _listen(self, config: Config) -> None:
        address, port = config.web.address
        server = WebServer(self._app, address, port, answered=self._count_request)
        try:
            await server.start()
        except OSError as error:
            raise StartError(str(error)) from error
        self._web = server
        self._app.serves_metrics = plugins.PROMETHEUS in config.exporters

    def _is_ready(self) -> bool:
        return all(runner.up is not None for runner in self._sampling.runners)

    def _live(self) -> Sequence[Batch]:
        return self._pipeline.latest.live(time.monotonic_ns())

    def _count_request(self, status: int) -> None:
        self._instruments.count(WEB_REQUESTS, str(status))

    # Exporters and the pipeline

    def _make_pipeline(self, config: Config) -> Pipeline:
        derivations = [derivation(config.derived) for derivation in plugins.derivation_classes()]
        return Pipeline(self._instruments, derivations)

    def _start_exporters(self, config: Config) -> list[PushExporter]:
        started = []
        for name, settings in config.exporters.items():
            if name == plugins.PROMETHEUS:
                continue
            try:
                exporter = plugins.push_exporter_class(name)(
                    name, settings, config.labels, self._instruments
                )
            except Unavailable as error:
                log.error('msg="exporter not available" exporter=%s error="%s"', name, error)
                continue
            exporter.start()
            started.append(exporter)
        self._pipeline.sinks = [exporter.offer for exporter in started]
        return started

    # Reload

    async def _reload(self) -> None:
        notify.reloading()
        try:
            config = self._load()
            if config.web.listen != self._config.web.listen:
                before = self._web
                await self._listen(config)
                if before is not None:
                    await before.stop()
        except (ConfigError, StartError) as error:
            for line in str(error).splitlines():
                log.error('msg="reload refused, the old configuration stays" error="%s"', line)
            self._note_reload(successful=False)
        else:
            await self._apply(config)
            self._note_reload(successful=True)
            log.info('msg="reloaded"')
        notify.ready()

    async def _apply(self, config: Config) -> None:
        before, self._config = self._config, config
        logging.getLogger().setLevel(config.log.level.upper())
        if config.derived != before.derived:
            self._pipeline.replace_derivations(
                [derivation(config.derived) for derivation in plugins.derivation_classes()]
            )
        if (config.exporters, config.labels) != (before.exporters, before.labels):
            old, self._pipeline.sinks = self._exporters, []
            await asyncio.to_thread(_stop_exporters, old)
            self._exporters = self._start_exporters(config)
        self._app.serves_metrics = plugins.PROMETHEUS in config.exporters
        await asyncio.to_thread(self._sampling.apply, config, host_of(config.host))
        self._guard_lanes()

    def _note_reload(self, *, successful: bool) -> None:
        self._instruments.set(RELOAD_SUCCESSFUL, to=int(successful))
        if successful:
            self._instruments.set(RELOAD_TIMESTAMP, to=time.time())

    # Guards and the watchdog

    def _guard_lanes(self) -> None:
        """Watch every lane, from now on, for a collector that is stuck."""
        lanes = self._sampling.lanes
        for gone in [lane for lane in self._guards if lane not in lanes]:
            self._guards.pop(gone).cancel()
        for lane in lanes:
            if lane not in self._guards:
                self._guard(lane)

    def _guard(self, lane: Lane) -> None:
        loop = asyncio.get_running_loop()
        # The loop's clock is the monotonic one, in seconds. A lane that is late, or that a reload
        # has stopped, answers with a moment that has passed: do not spin on it.
        at = max(lane.guard() / 1e9, loop.time() + _GUARD_PAUSE_S)
        self._guards[lane] = loop.call_at(at, self._guard, lane)

    def _tend(self) -> None:
        """Every few seconds: guard lanes that are new, and tell systemd that all is well."""
        self._guard_lanes()
        watchdog = notify.watchdog_interval()
        if watchdog is not None and self._sampling.is_ticking():
            notify.watchdog()
        delay = _TEND_S if watchdog is None else min(_TEND_S, watchdog / 3)
        asyncio.get_running_loop().call_later(delay, self._tend)


def _stop_exporters(exporters: Sequence[PushExporter]) -> None:
    deadline = time.monotonic() + _STOP_EXPORTERS_S
    for exporter in exporters:
        exporter.stop(max(0.0, deadline - time.monotonic()))


def _one_thread() -> dict[str, object]:
    return {"type": "threadpool", "max_workers": 1}
