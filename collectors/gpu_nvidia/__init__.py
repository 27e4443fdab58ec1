"""NVIDIA GPUs and MIG instances, through NVML: what dcgm-exporter and nvidia-smi are run for.

    collector.py   GpuNvidia: the GPUs of the machine, one lost or hanging among them, re-init
    driver.py      loading the library, opening and closing it, what its codes mean
    identity.py    what never changes of a GPU, read once
    device.py      one GPU: its readings of every tick, and the slow ones
    reading.py     one call and what becomes of its answers; fields.py many values in one call
    activity.py    every tick: how busy, full, hot and throttled; power.py power and energy
    health.py      every 30 s: ECC, rows, PCIe, persistence; links.py NVLink and its fabric
    gpm.py         SM, tensor and memory activity (Hopper and later)
    mig.py         instances and their memory
    processes.py   who uses it
    events.py      XIDs, in a thread of their own

Every call is made through a function of the library that was looked up once, into a buffer that
was made once: that costs a fraction of the objects of nvidia-ml-py, which does the rest (loading,
structures, names and numbers).
"""

from telemetryd.collectors.gpu_nvidia.collector import GpuNvidia
from telemetryd.collectors.gpu_nvidia.settings import GpuNvidiaConfig

__all__ = ["GpuNvidia", "GpuNvidiaConfig"]
