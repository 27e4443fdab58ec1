"""What every dashboard has in common: its time range, its links, how variables are looked up."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard
from panels import SOURCE

_TAG = "telemetryd"


def begin(
    title: str, uid: str, tag: str, description: str, *, hands_over: bool
) -> builders.Dashboard:
    """A dashboard without panels, and with the choice of a Prometheus. `uid` is its address: links
    to it and bookmarks hold as long as it stays. `hands_over`: its links to the other dashboards
    take along what is chosen here."""
    return (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([_TAG, tag])
        .timezone("browser")
        .time("now-3h", "now")
        .refresh("30s")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(
            builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
        .link(
            builders.DashboardLink("Other telemetryd dashboards")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags([_TAG])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(hands_over)
        )
    )


def labels(name: str, label: str, selector: str) -> builders.QueryVariable:
    """A variable with the values that a label has, looked up when the time range changes, so that
    what is gone now can be chosen in the past."""
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": f"label_values({selector}, {name})", "refId": f"variable-{name}"})
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    )
