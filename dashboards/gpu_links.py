"""PCIe and NVLink of the GPUs."""

from __future__ import annotations

from gpu_overview import ROWS
from gpu_promql import DEVICE, GPU, carried, increase, link_used, series
from layout import Row
from panels import ACT, GOOD, NONE_IS_GOOD, Column, Query, graph, grid

_WIDTH = series("telemetryd_gpu_pcie_link_width")
_WIDTH_MAX = series("telemetryd_gpu_pcie_link_width_max")
_UP = series("telemetryd_gpu_nvlink_up")
_FULL = ((None, ACT), (1, GOOD))

LINKS = Row(
    "Links",
    (
        grid(
            "State of the links",
            "PCIe as it runs now beside the best that GPU and slot have in common, and the "
            "NVLinks that are up. An idle GPU lowers its generation; fewer lanes than possible "
            "under load is a fault of the slot, a riser or the GPU.",
            ROWS,
            [
                Column(series("telemetryd_gpu_pcie_link_generation"), "PCIe generation", "none"),
                Column(
                    series("telemetryd_gpu_pcie_link_generation_max"), "Highest generation", "none"
                ),
                Column(_WIDTH, "PCIe lanes", "none"),
                Column(_WIDTH_MAX, "Most lanes", "none"),
                Column(f"{_WIDTH} / {_WIDTH_MAX}", "Of the lanes", "percentunit", _FULL),
                Column(f"sum without (link) ({_UP})", "NVLinks up", "none"),
                Column(f"count without (link) ({_UP})", "NVLinks", "none"),
                Column(f"sum without (link) (1 - {_UP})", "NVLinks down", "none", NONE_IS_GOOD),
                Column(
                    series("telemetryd_gpu_nvlink_speed_bytes_per_second"), "NVLink speed", "Bps"
                ),
            ],
        ),
        graph(
            "PCIe",
            "Bytes a second between each GPU and its host; `receive` is to the GPU. Much of it "
            "while the multiprocessors rest: the data does not come fast enough.",
            "Bps",
            Query(carried("pcie"), f"{DEVICE} {{{{direction}}}}"),
            width=12,
        ),
        graph(
            "PCIe used",
            "Share of the PCIe link's capacity that was used, each direction apart. Near 100 % "
            "the link is what the work waits for.",
            "percentunit",
            Query(link_used("pcie"), f"{DEVICE} {{{{direction}}}}"),
            width=12,
            highest=1,
        ),
        graph(
            "NVLink",
            "Bytes a second over all NVLinks of each GPU together. One GPU far below the others of "
            "the same job makes them all wait.",
            "Bps",
            Query(carried("nvlink"), f"{DEVICE} {{{{direction}}}}"),
            width=12,
        ),
        graph(
            "NVLink used",
            "Share of the capacity of the NVLinks that are up, each direction apart. Near 100 % "
            "the GPUs wait for each other's data.",
            "percentunit",
            Query(link_used("nvlink"), f"{DEVICE} {{{{direction}}}}"),
            width=12,
            highest=1,
        ),
        graph(
            "PCIe packets sent again",
            "Packets that were sent again, and times that the link was trained again after too "
            "many of them. More than 8 a minute is a bad slot, riser or cable.",
            "short",
            Query(increase("telemetryd_gpu_pcie_replays_total"), f"{GPU} replays"),
            Query(increase("telemetryd_gpu_pcie_replay_rollovers_total"), f"{GPU} rollovers"),
        ),
        graph(
            "PCIe errors",
            "Errors of the PCIe links by type, over all GPUs that are chosen. Fatal and non-fatal "
            "ones should not happen at all.",
            "short",
            Query(f"sum by (type) ({increase('telemetryd_gpu_pcie_errors_total')})", "{{type}}"),
        ),
        graph(
            "NVLink errors",
            "Errors of each GPU's NVLinks by type. Replays and CRC errors are mended by the link "
            "and only cost time; recoveries stop it for a while, and a recovery that failed is a "
            "link that is gone.",
            "short",
            Query(increase("telemetryd_gpu_nvlink_errors_total"), f"{GPU} {{{{type}}}}"),
        ),
    ),
)
