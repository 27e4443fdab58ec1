"""Utilization of GPUs and MIG instances: how busy, how full, how near to the power limit.

Drivers give shares of time only as a gauge: of their own last sampling period (`gpu`, encoder,
decoder: up to a second), or of the time since the reading before (`gpu_sm`, `gpu_tensor`). Each
stands for the interval that it ends, so that the integral is a mean sampled at our interval; of
the last two, which leave no time out, it is the true mean. Memory and power are levels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from telemetryd import gpus
from telemetryd.batch import Batch
from telemetryd.derived.gpu_readings import ABSENT, Gpu, GpuDerivation, Places, Row
from telemetryd.derived.level import Level
from telemetryd.derived.utilization import METRICS, Account
from telemetryd.metric import Point

_SHARES = {
    "gpu": gpus.BUSY,
    "gpu_sm": gpus.SM_ACTIVE,
    "gpu_tensor": gpus.TENSOR_ACTIVE,
    "gpu_encoder": gpus.ENCODER_BUSY,
    "gpu_decoder": gpus.DECODER_BUSY,
}
_WITH_PEAK = frozenset({"gpu", "gpu_sm"})


class GpuUtilization(GpuDerivation):
    """`gpu`, `gpu_sm`, `gpu_tensor`, `gpu_encoder` and `gpu_decoder`: busy share of the time;
    `gpu_memory`: used / total, what the driver reserves for itself being no use; `gpu_power`: power
    / enforced limit. Each for the GPUs and MIG instances that have the readings.

    A share below 0 or above 1, or more memory in use than there is, is a driver's nonsense: no
    ratio, nothing integrated, and nothing clamped. Power above the limit is no nonsense: a GPU
    exceeds its limit for a moment before it is slowed down, and `gpu_power` exceeds 1 with it.
    Where a GPU has no average power, the power of the moment stands in for it.

    A ratio is there from the first reading on, since each is a reading in its own right; the
    integral begins with the second, and leaves out what lies between two readings more than
    GAP_INTERVALS apart. Compute instances of one GPU instance share their memory and report the
    same: a sum over instances counts it twice.
    """

    identity = 1
    inputs = (
        *_SHARES.values(),
        gpus.MEMORY_USED,
        gpus.MEMORY_TOTAL,
        gpus.POWER_AVERAGE,
        gpus.POWER_INSTANT,
        gpus.POWER_LIMIT,
    )
    metrics = METRICS

    def new(self, collector: str, labels: tuple[str, str]) -> Gpu:  # noqa: ARG002
        return _Gpu(labels[0], self.config.peak_window)


class _Quotient:
    """A level that is one reading divided by another, at most `most`."""

    __slots__ = ("_account", "_level", "_most", "total_at", "used_at")

    def __init__(self, account: Account, most: float) -> None:
        self._account = account
        self._most = most
        self.restart()
        self.used_at = self.total_at = ABSENT

    def restart(self) -> None:
        """The next reading is a first one again; what was added up stays."""
        self._level = Level(self._account)

    def points(self, values: Row, batch: Batch) -> Iterator[Point]:
        used, total = values[self.used_at], values[self.total_at]
        ratio = None
        if used is not None and total is not None and used >= 0 and total > 0:
            ratio = used / total
        self._level.observe(None if ratio is None or ratio > self._most else ratio, batch)
        return self._account.points()


class _Gpu(Gpu):
    def __init__(self, gpu: str, peak_window: float) -> None:
        super().__init__()
        self._gpu = gpu
        self._peak_window = peak_window
        self._accounts: dict[str, Account] = {}
        self._shares: list[tuple[Account, int]] = []
        self._quotients: dict[str, _Quotient] = {}
        self._has_average = False

    def look(self, places: Places) -> None:
        is_another = places.uuid != self._uuid
        super().look(places)
        for resource, metric in _SHARES.items():
            if resource not in self._accounts and places.of(metric) != ABSENT:
                window = self._peak_window if resource in _WITH_PEAK else None
                self._accounts[resource] = Account(resource, self._gpu, window)
        self._shares = [
            (account, places.of(_SHARES[resource])) for resource, account in self._accounts.items()
        ]
        if is_another:
            for quotient in self._quotients.values():
                quotient.restart()
        used, total = places.of(gpus.MEMORY_USED), places.of(gpus.MEMORY_TOTAL)
        self._place("gpu_memory", used, total, most=1)
        limit = places.of(gpus.POWER_LIMIT, "enforced")
        self._place("gpu_power", self._power(places), limit, most=math.inf)

    def _power(self, places: Places) -> int:
        average = places.of(gpus.POWER_AVERAGE, "gpu")
        # The two are never mixed: one that has an average is not given another figure when a
        # reading fails.
        self._has_average = self._has_average or average != ABSENT
        return average if self._has_average else places.of(gpus.POWER_INSTANT, "gpu")

    def _place(self, resource: str, used_at: int, total_at: int, most: float) -> None:
        quotient = self._quotients.get(resource)
        if quotient is None:
            if ABSENT in (used_at, total_at):
                return
            quotient = self._quotients[resource] = _Quotient(Account(resource, self._gpu), most)
        quotient.used_at, quotient.total_at = used_at, total_at

    def figures(self, values: Row, batch: Batch) -> Iterator[Point]:
        seconds = self.seconds_since_last(batch)
        for account, at in self._shares:
            share = values[at]
            if share is not None and not 0 <= share <= 1:
                share = None
            account.observe(share, seconds, batch.mono_ns)
            yield from account.points()
        for quotient in self._quotients.values():
            yield from quotient.points(values, batch)
