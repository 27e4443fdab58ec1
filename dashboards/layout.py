"""Where panels stand: rows of Grafana's 24 columns, filled from the left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as dashboard_builders
from grafana_foundation_sdk.models import dashboard
from panels import Panel

COLUMNS = 24


@dataclass(frozen=True)
class Row:
    """Panels under a heading. A closed one asks Prometheus nothing until it is opened."""

    title: str
    panels: Sequence[Panel]
    is_open: bool = False


def place(
    builder: dashboard_builders.Dashboard, top: Sequence[Panel], rows: Sequence[Row]
) -> dashboard.Dashboard:
    """The dashboard with the panels of `top` and then the rows. Panels are numbered in order."""
    result = builder.build()
    result.panels = []
    y = _append(result.panels, top, 0)
    for row in rows:
        heading = dashboard.RowPanel(
            title=row.title,
            collapsed=not row.is_open,
            grid_pos=dashboard.GridPos(h=1, w=COLUMNS, x=0, y=y),
        )
        result.panels.append(heading)
        if row.is_open:
            y = _append(result.panels, row.panels, y + 1)
        else:
            inside: list[dashboard.Panel | dashboard.RowPanel] = []
            _append(inside, row.panels, y + 1)
            heading.panels = [one for one in inside if isinstance(one, dashboard.Panel)]
            y += 1
    for number, panel in enumerate(every_panel(result), start=1):
        panel.id_val = number
    return result


def every_panel(built: dashboard.Dashboard) -> Iterator[dashboard.Panel | dashboard.RowPanel]:
    """All panels from top to bottom, those inside closed rows too."""
    for panel in built.panels or ():
        yield panel
        if isinstance(panel, dashboard.RowPanel):
            yield from panel.panels


def _append(
    placed: list[dashboard.Panel | dashboard.RowPanel], panels: Sequence[Panel], y: int
) -> int:
    """Place panels side by side from height `y` on; the height below the last."""
    x = height = 0
    for panel in (one.build() for one in panels):
        assert panel.grid_pos is not None
        if x + panel.grid_pos.w > COLUMNS:
            x, y, height = 0, y + height, 0
        panel.grid_pos.x, panel.grid_pos.y = x, y
        x += panel.grid_pos.w
        height = max(height, panel.grid_pos.h)
        placed.append(panel)
    return y + height
