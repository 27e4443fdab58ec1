"""The daemon: builds everything from the configuration, reloads it, and stops in order.

The main thread runs an event loop with the HTTP endpoint, the signals, the systemd watchdog and
the guards of the lanes. Should that loop hang, WATCHDOG=1 stays out and systemd restarts us.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from apscheduler.job import Job
from apscheduler.schedulers.background import BackgroundScheduler

from telemetryd import notify, plugins
from telemetryd.attempt import Attempt
from telemetryd.batch import Batch
from telemetryd.clock import Clock
from telemetryd.config import Config, host_of
from telemetryd.errors import ConfigError, StartError, Unavailable
from telemetryd.exporter import PushExporter
from telemetryd.instruments import (
    RELOAD_SUCCESSFUL,
    RELOAD_TIMESTAMP,
    SPOOL_RECORDS,
    WEB_REQUESTS,
    Instruments,
)
from telemetryd.lane import Lane
from telemetryd.memory import settle
from telemetryd.pipeline import Pipeline
from telemetryd.sampling import Sampling
from telemetryd.state import StateFile
from telemetryd.web.app import App
from telemetryd.web.server import WebServer

log = logging.getLogger("telemetryd")

# Hardware that was not there is looked for this often, and files that were named are read again.
LOOK_AGAIN_S = 60
# What was learned is saved every so many times.
_SAVE_EACH = 10
_GUARD_PAUSE_S = 0.05
# How soon a lane that was added is guarded; a guess.
_TEND_S = 5.0
# Together, with what closing the collectors and the endpoint may take, below the 10 s within which
# the daemon promises to be gone.
_STOP_LANES_S = 2.5
_STOP_EXPORTERS_S = 4.5
_LAST_RESORT_S = 9.5


class Service:
    """One daemon. `load` reads the configuration anew; it raises ConfigError."""

    def __init__(self, load: Callable[[], Config]) -> None:
        self._load = load
        self._config = load()
        self._instruments = Instruments()
        self._state = StateFile.of_service(os.environ)
        self._minutes = 0
        self._is_settled = False
        self._pipeline = self._make_pipeline(self._config)
        self._sampling = Sampling(
            self._config, host_of(self._config.host), self._pipeline, self._instruments
        )
        self._exporters: dict[str, PushExporter] = {}
        self._app = App(self._live, self._is_ready)
        self._web: WebServer | None = None
        self._is_started = False
        self._stop = asyncio.Event()
        self._reload_asked = asyncio.Event()
        self._guards: dict[Lane, asyncio.TimerHandle] = {}

    def run(self) -> None:
        """Run until SIGTERM or SIGINT. Raises StartError.

        Leaves through os._exit if a thread is stuck in a collector: nothing else gets past it.
        Whatever may hang, the process is gone 9.5 s after the signal.
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
            loop.add_signal_handler(number, self._ask_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_asked.set)
        await self._change_exporters(self._config, self._config)
        self._note_reload(successful=True)
        await asyncio.to_thread(self._recall)
        # In a thread: a collector that is slow to open keeps neither scrapes nor signals waiting.
        await asyncio.to_thread(self._sampling.start)
        self._is_started = True
        scheduler = BackgroundScheduler(timezone="UTC", executors={"default": _one_thread()})
        looking = scheduler.add_job(
            self._each_minute, "interval", seconds=LOOK_AGAIN_S, misfire_grace_time=None
        )
        scheduler.start()
        self._tend(looking)
        reloads = loop.create_task(self._reload_when_asked())
        notify.ready()
        log.info('msg="started" listen=%s', self._web.address if self._web else "")
        await self._stop.wait()
        notify.stopping()
        reloads.cancel()
        scheduler.shutdown(wait=False)
        return await self._shut_down()

    def _recall(self) -> None:
        self._pipeline.restore(self._state.load())
        self._pipeline.refresh()

    def _each_minute(self) -> None:
        self._sampling.look_again()
        self._pipeline.refresh()
        self._minutes += 1
        if not self._is_settled:
            self._is_settled = True
            settle()
        if self._minutes % _SAVE_EACH == 0:
            self._keep()

    def _keep(self) -> None:
        """Save what was learned; nothing learned leaves the file as it is."""
        learned = self._pipeline.save()
        if learned:
            self._state.save(learned)

    def _ask_to_stop(self) -> None:
        if self._stop.is_set():
            return
        self._stop.set()
        self._sampling.give_up_opening()
        # It needs neither this loop nor the interpreter: says where each thread hangs, and exits.
        with contextlib.suppress(RuntimeError):  # nobody listens at standard error
            faulthandler.dump_traceback_later(_LAST_RESORT_S, exit=True)

    async def _shut_down(self) -> bool:
        """Lanes first, then a last push of what they read, then the sensors and the endpoint."""
        for timer in self._guards.values():
            timer.cancel()
        ended = await asyncio.to_thread(self._sampling.stop, _STOP_LANES_S)
        await asyncio.to_thread(self._keep)
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

    async def _move(self, config: Config) -> None:
        """Listen at another address. Raises StartError and stays if that cannot be had."""
        before, here = self._web, self._config
        if before is not None and config.web.address[1] == here.web.address[1]:
            # One port cannot be had on one address and on all of them at once.
            await before.stop()
            try:
                await self._listen(config)
            except StartError:
                await self._listen(here)
                raise
        else:
            await self._listen(config)
            if before is not None:
                await before.stop()

    def _is_ready(self) -> bool:
        runners = self._sampling.runners
        return self._is_started and all(runner.up is not None for runner in runners)

    def _live(self) -> Sequence[Batch]:
        return self._pipeline.latest.live(time.monotonic_ns())

    def _count_request(self, status: int) -> None:
        self._instruments.count(WEB_REQUESTS, str(status))

    # Exporters and the pipeline

    def _make_pipeline(self, config: Config) -> Pipeline:
        derivations = [derivation(config.derived) for derivation in plugins.derivation_classes()]
        return Pipeline(self._instruments, derivations)

    async def _change_exporters(self, before: Config, config: Config) -> None:
        """Make those that are new or changed, stop those that are gone or changed, then start the
        new ones: they take batches meanwhile, and find the files of the old ones free. The others
        keep what waits in them."""
        old = self._exporters
        keep = {
            name: exporter
            for name, exporter in old.items()
            if (config.labels, config.spool) == (before.labels, before.spool)
            and config.exporters.get(name) == before.exporters[name]
        }
        names = [n for n in config.exporters if n not in keep and n != plugins.PROMETHEUS]
        made = {name: self._make_exporter(name, config) for name in names}
        fresh = {name: exporter for name, exporter in made.items() if exporter is not None}
        self._use(keep | fresh)
        gone = {name: exporter for name, exporter in old.items() if name not in keep}
        if gone:
            await asyncio.to_thread(_stop_exporters, gone)
        for name in sorted(gone.keys() - fresh.keys()):
            if waiting := self._instruments.value(SPOOL_RECORDS, name):
                log.warning(
                    'msg="what waits for a destination that is gone stays on disk; see telemetryd '
                    'spool status" destination=%s records=%d',
                    name,
                    waiting,
                )
            self._instruments.forget("destination", name)
        for name, exporter in fresh.items():
            if not await asyncio.to_thread(_start_exporter, name, exporter):
                self._use({n: one for n, one in self._exporters.items() if n != name})

    def _use(self, exporters: dict[str, PushExporter]) -> None:
        self._exporters = exporters
        self._pipeline.sinks = [exporter.offer for exporter in exporters.values()]

    def _make_exporter(self, name: str, config: Config) -> PushExporter | None:
        try:
            own = config.exporters[name]
            kind = plugins.push_exporter_class(own.kind(name))
            return kind(name, own, config.labels, self._instruments, config.spool)
        except Exception as error:  # noqa: BLE001  (it may be somebody else's: the others go on)
            _report(name, error)
            return None

    # Reload

    async def _reload_when_asked(self) -> None:
        """One after the other; what is asked for while one runs is one more, however often."""
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            await self._reload()

    async def _reload(self) -> None:
        notify.reloading()
        try:
            config = await asyncio.to_thread(self._load)
            if config.web.listen != self._config.web.listen:
                await self._move(config)
            await self._apply(config)
        except (ConfigError, StartError) as error:
            for line in str(error).splitlines():
                log.error('msg="reload refused, the old configuration stays" error="%s"', line)
            self._note_reload(successful=False)
        except Exception:
            log.exception('msg="reload failed"')
            self._note_reload(successful=False)
        else:
            self._note_reload(successful=True)
            log.info('msg="reloaded"')
        notify.ready()

    async def _apply(self, config: Config) -> None:
        before, self._config = self._config, config
        self._is_settled = False
        logging.getLogger().setLevel(config.log.level.upper())
        if config.derived != before.derived:
            self._pipeline.replace_derivations(
                [derivation(config.derived) for derivation in plugins.derivation_classes()]
            )
            await asyncio.to_thread(self._pipeline.refresh)
        await self._change_exporters(before, config)
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

    def _tend(self, looking: Job) -> None:
        """Every few seconds: guard lanes that are new, and tell systemd that all is well."""
        self._guard_lanes()
        _keep_time(looking)
        watchdog = notify.watchdog_interval()
        if watchdog is not None and self._sampling.is_ticking():
            notify.watchdog()
        delay = _TEND_S if watchdog is None else min(_TEND_S, watchdog / 3)
        asyncio.get_running_loop().call_later(delay, self._tend, looking)


def _keep_time(looking: Job) -> None:
    """APScheduler keeps wall time: were the clock set back, it would wait as much longer."""
    if looking.next_run_time - datetime.now(UTC) > timedelta(seconds=2 * LOOK_AGAIN_S):
        looking.reschedule("interval", seconds=LOOK_AGAIN_S)


def _start_exporter(name: str, exporter: PushExporter) -> bool:
    try:
        exporter.start()
    except Exception as error:  # noqa: BLE001  (it may be somebody else's: the others go on)
        _report(name, error)
        return False
    return True


def _report(name: str, error: Exception) -> None:
    why = error if isinstance(error, Unavailable) else repr(error)
    log.error('msg="exporter not available" exporter=%s error="%s"', name, why)


def _stop_exporters(exporters: Mapping[str, PushExporter]) -> None:
    """All at once, so that a destination that hangs takes no time from the others."""
    clock = Clock()
    deadline = time.monotonic() + _STOP_EXPORTERS_S
    stopping = {
        name: Attempt(partial(exporter.stop, _STOP_EXPORTERS_S), f"stop-{name}")
        for name, exporter in exporters.items()
    }
    for name, attempt in stopping.items():
        if attempt.wait(max(0.0, deadline - time.monotonic()), clock):
            try:
                attempt.outcome()
            except Exception:
                log.exception('msg="exporter failed to stop" exporter=%s', name)


def _one_thread() -> dict[str, object]:
    return {"type": "threadpool", "max_workers": 1}
