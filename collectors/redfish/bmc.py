"""A BMC: what it has is found out once, and read on every round.

Looked through again when a resource is gone, when a power supply was added or pulled, when the BMC
could not be reached (it may come back with another firmware), and from time to time while
something in it is broken.
"""

from __future__ import annotations

from telemetryd.collectors.redfish.connection import BmcError, LoginError
from telemetryd.collectors.redfish.discovery import Discovery
from telemetryd.collectors.redfish.meters import Plan, Resource, listed
from telemetryd.collectors.redfish.planning import make_plan
from telemetryd.collectors.redfish.rounds import Round
from telemetryd.collectors.redfish.session import Document, Session
from telemetryd.collectors.redfish.settings import RedfishConfig
from telemetryd.collectors.redfish.vendors import vendor_of
from telemetryd.errors import ReadError, Unavailable
from telemetryd.host import Host

# Guesses: a BMC with forty chassis at a second each; one whose firmware is being mended.
_LOOKING_S = 120.0
_LOOK_AGAIN_S = 600.0


class Bmc:
    """`read` and `close` are for one thread, `abort` and `stop` for another. A round may take
    `seconds` for its readings."""

    def __init__(self, config: RedfishConfig, host: Host, seconds: float) -> None:
        self.url = config.url
        self._clock = host.clock
        self._chosen = config.chassis
        self._round_ns = int(seconds * 1e9)
        self._session = Session(config, host)
        self._plan: Plan | None = None
        self._remarks: tuple[str, ...] = ()
        self._look_again_ns: int | None = None
        self._is_stopping = False

    @property
    def is_reached(self) -> bool:
        """Whether it answers, or at least accepts a connection."""
        return self._session.is_reached

    @property
    def remarks(self) -> list[str]:
        remarks = list(self._remarks)
        if self._session.is_basic:
            remarks.append("the BMC opens no session: each request carries the password")
        return remarks

    def read(self, this: Round) -> None:
        """Fill a round. Raises BmcError if nothing can be read at all, or nothing more."""
        now_ns = self._clock.mono_ns()
        if self._look_again_ns is not None and now_ns >= self._look_again_ns:
            self._plan = None
        if self._plan is None:
            self._look_through(this)
        assert self._plan is not None
        this.values_ns = self._clock.mono_ns()
        this.deadline_ns = this.values_ns + self._round_ns
        try:
            for resource in self._plan.resources:
                self._read_resource(resource, this)
        except BmcError as error:
            if error.reason == "io":
                self._plan = None
            raise
        if not this.points:
            self._explain_silence(this)

    def why_unavailable(self, error: Exception | None) -> Unavailable | None:
        """Of a first round: whether there is nothing here to read, whatever happens. A BMC that
        does not let us in is there, and its samples fail."""
        if not isinstance(error, BmcError) or isinstance(error, LoginError):
            return None
        if not self.is_reached or (error.ends_round and error.reason != "timeout"):
            return Unavailable(error.what, error.remedy)
        return None

    def abort(self) -> None:
        """Let a request that hangs fail."""
        self._session.abort()

    def stop(self) -> None:
        """Let the round that is being read fail."""
        if not self._is_stopping:
            self._is_stopping = True
            self.abort()

    def close(self) -> None:
        self._session.close()

    def _look_through(self, this: Round) -> None:
        begin_ns = self._clock.mono_ns()
        this.deadline_ns = deadline_ns = begin_ns + int(_LOOKING_S * 1e9)
        plan = Plan()
        root = self._session.begin(deadline_ns)
        discovery = Discovery(lambda path: self._get(path, deadline_ns), self._chosen, plan)
        try:
            chassis = discovery.chassis(root)
        finally:
            this.faults += discovery.faults
        documents = [one.document for one in chassis]
        documents += [one.power[1] for one in chassis if one.power is not None]
        make_plan(plan, chassis, vendor_of(root, *documents))
        self._plan, self._remarks = plan, tuple(plan.remarks)
        again_ns = self._clock.mono_ns() + int(_LOOK_AGAIN_S * 1e9)
        self._look_again_ns = None if plan.is_complete else again_ns

    def _read_resource(self, resource: Resource, this: Round) -> None:
        try:
            document = self._get(resource.path, this.deadline_ns)
            if resource.supplies is not None and listed(document) != resource.supplies:
                raise BmcError(  # noqa: TRY301  (like every other reason to look again)
                    "missing",
                    f"{resource.path}: a power supply was added or pulled",
                    "it is looked through again on the next round",
                )
        except BmcError as error:
            if error.ends_round:
                raise
            this.faults.append((error, ""))
            if error.reason == "missing":
                self._look_again_ns = self._clock.mono_ns()
            return
        for reading in resource.readings:
            try:
                value = reading.read(document)
            except ReadError as error:
                this.faults.append((error, f"{resource.path} {reading.name}"))
            else:
                if value is not None:
                    this.points.append((reading.series, value))

    def _explain_silence(self, this: Round) -> None:
        if not this.faults:
            self._plan = None
            raise BmcError(
                "missing", f"{self.url} has no reading now", "see its log; it may be starting"
            )
        error, what = this.faults.pop(0)
        reason = error.reason if isinstance(error, ReadError) else "exception"
        raise ReadError(reason, f"{what}: {error}" if what else str(error)) from error

    def _get(self, path: str, deadline_ns: int) -> Document:
        if self._is_stopping:
            raise BmcError("io", f"{path}: not asked", "the collector is closed", ends_round=True)
        return self._session.get(path, deadline_ns)
