"""Fake GPUs for a daemon that is watched: between them they have everything that one may report.

GPU 0 works, GPU 1 is divided, GPU 2 is held and does nothing, GPU 3 is an odd one: with a fan, and
with what only GPUs before Ampere and modules with a CPU tell.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.nvml import FakeNvml, Process

_WORKER, _SHARER, _HOLDER = 4001, 4002, 4003
# The control group of the job that they belong to.
JOB_GROUP = "/system.slice/slurmstepd.scope/job_7"
_GIB = 1 << 30
# Two bits a fault and four of the configuration, all of them: the driver tells that it is not so.
_SOUND = 0b0001_10_10_10_10
_BEAT_S = 2.0


@contextmanager
def gpus_at_work(folder: Path, host: Path) -> Iterator[str]:
    """The GPUs at work until the end; their part of the daemon's configuration. Their processes
    have a name and a job in the host's /proc."""
    fake = FakeNvml(folder, gpus=4)
    for process in (_WORKER, _SHARER, _HOLDER):
        (host / "proc" / str(process)).mkdir()
        (host / "proc" / str(process) / "comm").write_text("python\n")
        (host / "proc" / str(process) / "cgroup").write_text(f"0::{JOB_GROUP}/step_0\n")
    with fake.batch():
        _divide(fake)
        fake.busy(0)
        fake.processes(0, Process(_WORKER, 18 * _GIB, sm=90))
        fake.gpu(0, {"util_enc": 10, "util_dec": 20, "fabric_health": _SOUND})
        fake.gpu(0, {f"fi.{field}.*": 0 for field in (208, 214, 221)})
        fake.gpu(2, mem_used=4 * _GIB)
        fake.processes(2, Process(_HOLDER, 4 * _GIB, sm=0))
        fake.gpu(3, {"fans": 1, "fan.0": 30, "fi.185.1": 187_420, "fi.186.1": 186_900})
        fake.gpu(3, {f"retired.{what}": 0 for what in ("sbe", "dbe", "pending")})
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(_BEAT_S):
            fake.xid(0, 13)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield f"""
[collectors.gpu_nvidia]
library = "{fake.library}"
slow_interval = 1
[derived]
held_idle_after = 1
"""
    finally:
        stop.set()
        thread.join()


def _divide(fake: FakeNvml) -> None:
    fake.mig(1, ["3g.40gb", "1g.10gb"])
    instance = fake.state["g1.mig.0.gi"]
    fake.gpu(1, {f"gi.{instance}.gpm.2": 55.0, f"gi.{instance}.mem_used": 8 * _GIB})
    fake.processes(1, Process(_SHARER, 8 * _GIB, gi=int(instance), ci=0))
