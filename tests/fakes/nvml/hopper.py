"""H100, H200 and GH200. The H100's values are those that nvidia-smi showed on a real one, idle and
under a burn-in load."""

from __future__ import annotations

from fakes.nvml.pieces import (
    DATA_CENTER,
    FABRIC,
    MIB,
    Model,
    Profile,
    State,
    clocks,
    gpm,
    limits,
    memory,
    nvlink,
    pcie,
    utilization,
)

_HOPPER: State = {
    **DATA_CENTER,
    **FABRIC,
    **pcie(5, 5),
    **limits(700, 200, 700),
    "arch": 9,
    "cc_major": 9,
    "cc_minor": 0,
    "mig": 0,
    "mig_pending": 0,
    "mig_max": 7,
    "gpm": 1,
    "gpm_streaming": 0,
    "fi.193": -8,
    "fi.194": -2,
    "fi.195": 0,
    "fi.196": 0,
    "fi.197": 0,
    "fi.198": 0,
}

H100 = Model(
    "NVIDIA H100 80GB HBM3",
    facts={
        **_HOPPER,
        "vbios": "96.00.A5.00.01",
        "part": "692-2G520-0200-000",
        "pci_device_id": 0x233010DE,
        "pci_subsystem_id": 0x16C110DE,
        **nvlink(18, 4, 26562),
        **clocks("clkmax", 1980, 2619, 1545),
        **memory(81559, 479, 131072),
    },
    idle={
        **clocks("clk", 345, 2619, 765),
        **utilization(0, 0),
        **gpm(),
        "pstate": 0,
        "power_average_mw": 69850,
        "power_instant_mw": 69620,
        "fi.185.2": 43190,
        "temp": 41,
        "temp_margin": 46,
        "temp_memory": 48,
        "clock_reasons": 1,
        "pcie_tx_kbs": 352,
        "pcie_rx_kbs": 329,
    },
    busy={
        **clocks("clk", 1980, 2619, 1545),
        **utilization(100, 11),
        **gpm(graphics=99.8, sm=98.9, occupancy=25.1, tensor=71.2, hmma=71.2, dram=38.4, fp32=1.2)
        | {"gpm.20": 4.1, "gpm.21": 8.5, "gpm.60": 2340.0, "gpm.61": 2310.0},
        "pstate": 0,
        "power_average_mw": 629450,
        "power_instant_mw": 588390,
        "fi.185.2": 85830,
        "temp": 59,
        "temp_margin": 26,
        "temp_memory": 55,
        "clock_reasons": 0,
        "pcie_tx_kbs": 3092,
        "pcie_rx_kbs": 6346,
        "mem_used": 19818 * MIB,
        "bar1_used": 19819 * MIB,
    },
    links=18,
    mig={
        "7g.80gb": Profile(7, (0,), 81024, 132, 7, 1),
        "4g.40gb": Profile(4, (1,), 40448, 64, 4),
        "3g.40gb": Profile(3, (2, 1), 40448, 60, 3),
        "2g.20gb": Profile(2, (3, 5, 4, 6), 20096, 32, 2),
        "1g.20gb": Profile(1, (9, 10, 11, 12), 20096, 16, 1),
        "1g.10gb": Profile(1, (9, 10, 11, 12, 13, 7, 8), 9984, 16, 1),
    },
)

H200 = Model(
    "NVIDIA H200",
    facts={
        **_HOPPER,
        "vbios": "96.00.A5.00.03",
        "part": "695-2G520-0280-001",
        "pci_device_id": 0x233510DE,
        "pci_subsystem_id": 0x18BE10DE,
        **nvlink(18, 4, 53125),  # this driver counts both directions
        **clocks("clkmax", 1980, 3201, 1545),
        **memory(143771, 614, 262144),
    },
    idle=H100.idle | clocks("clk", 345, 3201, 765) | {"power_average_mw": 76310},
    busy=H100.busy
    | clocks("clk", 1980, 3201, 1545)
    | {
        "power_average_mw": 627320,
        "power_instant_mw": 625240,
        "fi.185.2": 97690,
        "temp": 52,
        "temp_margin": 35,
        "temp_memory": 41,
        "mem_used": 32362 * MIB,
        "bar1_used": 32363 * MIB,
    },
    links=18,
    mig={
        "7g.141gb": Profile(7, (0,), 143360, 132, 7, 1),
        "4g.71gb": Profile(4, (1,), 71424, 64, 4),
        "3g.71gb": Profile(3, (2, 1), 71424, 60, 3),
        "2g.35gb": Profile(2, (3, 5, 4, 6), 33280, 32, 2),
        "1g.18gb": Profile(1, (9, 10, 11, 12, 13, 7, 8), 16384, 16, 1),
    },
)

# On a module with its CPU: power of the module beside that of the GPU.
GH200 = Model(
    "NVIDIA GH200 480GB",
    facts={
        **_HOPPER,
        **limits(900, 100, 900),
        "vbios": "96.00.A0.00.01",
        "part": "699-2G530-0200-RC1",
        "pci_device_id": 0x234210DE,
        "pci_subsystem_id": 0x16EB10DE,
        "fi.170": 10,
        "fi.187.1": 100000,
        "fi.188.1": 1000000,
        "fi.189.1": 1000000,
        "fi.190.1": 1000000,
        "fi.192.1": 1000000,
        **nvlink(18, 4, 26562),
        **clocks("clkmax", 1980, 2619, 1545),
        **memory(97871, 585, 131072),
    },
    idle=H100.idle
    | {
        "power_average_mw": 92110,
        "power_instant_mw": 91730,
        "fi.185.1": 187420,
        "fi.186.1": 186900,
    },
    busy=H100.busy
    | {
        "power_average_mw": 641270,
        "power_instant_mw": 655040,
        "fi.185.1": 832560,
        "fi.186.1": 848110,
    },
    links=18,
    mig=H100.mig,
)
