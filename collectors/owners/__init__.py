"""Who uses the machine: CPU time and memory of every job, pod, container and unit.

collector.py   Owners: what is published of whom
groups.py      the control groups that belong to an owner, and the files that tell their use
cpu_time.py    from what groups used to what owners used, so that nothing counts twice
accounts.py    the counters of each owner; the first so many, and the others
lookup.py      names that somebody else knows, asked for in a thread
slurm.py       scontrol, and the GPUs that a job holds
kubelet.py     names of pods
processes.py   what belongs to commands, and not to the owners of their control groups
"""

from telemetryd.collectors.owners.collector import Owners
from telemetryd.collectors.owners.settings import OwnersConfig

__all__ = ["Owners", "OwnersConfig"]
