"""A package of somebody else's, as pip would have installed it: modules and entry points."""

from __future__ import annotations

from pathlib import Path


def install_plugin(site: Path, modules: dict[str, str], entry_points: dict[str, str]) -> None:
    """Write modules and a dist-info with entry points of `telemetryd.collectors` into `site`."""
    for name, text in modules.items():
        (site / f"{name}.py").write_text(text)
    info = site / "site_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: site-plugin\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[telemetryd.collectors]", *lines, ""]))
