"""The kinds of panels that the dashboards are made of, all in one style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboard_builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

# Whatever Prometheus the viewer chooses.
SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")

# Colours by meaning, from Grafana's own palette.
GOOD, WATCH, ACT = "green", "orange", "red"

_BY_STEP = dashboard.FieldColorModeId.THRESHOLDS
Panel = timeseries.Panel | stat.Panel | statetimeline.Panel | table.Panel
# From this value on, this colour.
Steps = Sequence[tuple[float | None, str]]
NEUTRAL: Steps = ((None, "blue"),)
FILLING: Steps = ((None, GOOD), (0.8, WATCH), (0.95, ACT))
NONE_IS_GOOD: Steps = ((None, GOOD), (1, ACT))


@dataclass(frozen=True)
class Query:
    """An expression, and what its series are called."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Column:
    """A column of figures: its expression gives one figure for each row. `names` are words for
    single figures, `beyond` one for all from a figure on; a hidden column only brings rows.
    """

    expr: str
    title: str
    unit: str = "short"
    steps: Steps = ()
    is_bar: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    beyond: tuple[float, str] | None = None
    is_hidden: bool = False


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    height: int = 9,
    highest: float | None = None,
    is_stacked: bool = False,
    is_signed: bool = False,
    dashed: str | None = None,
    step: str | None = None,
) -> timeseries.Panel:
    """Lines over time. `dashed` is a pattern of the names of limits and peaks.

    `is_signed` lets the axis go below 0; `highest` fixes its upper end. `step` is the least time
    between two points, for what changes more seldom than it is scraped; windows grow with it.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(height)
        .line_width(1)
        .fill_opacity(40 if is_stacked else 8)
        .show_points(common.VisibilityMode.NEVER)
        .tooltip(
            common_builders.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["mean", "max", "lastNotNull"])
        )
    )
    if not is_signed:
        panel.min(0)
    if highest is not None:
        panel.max(highest)
    if is_stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if dashed is not None:
        panel.override_by_regexp(dashed, _DASHED)
    for position, query in enumerate(queries):
        target = _target(position, query.expr).legend_format(query.legend).range()
        panel.with_target(target if step is None else target.interval(step))
    return panel


_DASHED = [
    dashboard.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}),
    dashboard.DynamicConfigValue("custom.fillOpacity", 0),
    dashboard.DynamicConfigValue("custom.stacking", {"mode": "none"}),
]


def timeline(
    title: str,
    description: str,
    unit: str,
    query: Query,
    steps: Steps,
    *,
    width: int = 24,
    height: int = 9,
) -> statetimeline.Panel:
    """A bar over time for each series, coloured by the step that its value reaches."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(height)
        .thresholds(_thresholds(steps))
        .color_scheme(dashboard_builders.FieldColor().mode(_BY_STEP))
        .merge_values(True)
        .show_value(common.VisibilityMode.NEVER)
        .row_height(0.85)
        .line_width(0)
        .fill_opacity(80)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .with_target(_target(0, query.expr).legend_format(query.legend).range())
    )


def tile(
    title: str,
    description: str,
    unit: str,
    query: Query,
    steps: Steps,
    *,
    width: int = 3,
    height: int = 4,
    nothing: str = "no data",
    decimals: int | None = None,
    is_named: bool = False,
) -> stat.Panel:
    """One figure of now. `is_named` shows which device it belongs to, `nothing` stands there when
    there is none to show."""
    shows = common.BigValueTextMode
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(height)
        .no_value(nothing)
        .thresholds(_thresholds(steps))
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(shows.VALUE_AND_NAME if is_named else shows.VALUE)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_target(0, query.expr).legend_format(query.legend).instant())
    )
    return panel if decimals is None else panel.decimals(decimals)


def grid(
    title: str,
    description: str,
    rows: Mapping[str, str],
    columns: Sequence[Column],
    *,
    width: int = 24,
    height: int = 9,
) -> table.Panel:
    """A table: a row for each set of the labels in `rows` (label: heading), then the columns.

    Each expression is reduced to those labels, so that the columns find their rows.
    """
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .span(width)
        .height(height)
        .show_header(True)
        .cell_height(common.TableCellHeight.SM)
        .with_transformation(dashboard.DataTransformerConfig("merge", options={}))
    )
    names = ["Value"] if len(columns) == 1 else [f"Value #{_ref(i)}" for i in range(len(columns))]
    for position, column in enumerate(columns):
        expr = f"max by ({', '.join(rows)}) ({column.expr})"
        panel.with_target(_target(position, expr).format(PromQueryFormat.TABLE).instant())
    shown = {n: column for n, column in zip(names, columns, strict=True) if not column.is_hidden}
    for column in shown.values():
        panel.override_by_name(column.title, _cell(column))
    hidden = ["Time", *(name for name in names if name not in shown)]
    order = [*rows, *shown]
    return panel.with_transformation(
        dashboard.DataTransformerConfig(
            "organize",
            options={
                "excludeByName": dict.fromkeys(hidden, True),
                "indexByName": {name: index for index, name in enumerate(order)},
                "renameByName": {**rows, **{name: one.title for name, one in shown.items()}},
            },
        )
    )


def _cell(column: Column) -> list[dashboard.DynamicConfigValue]:
    """How the figures of a column look."""
    set_to = dashboard.DynamicConfigValue
    cell = [set_to("unit", column.unit)]
    if column.is_bar:
        cell += [
            set_to("custom.cellOptions", {"type": "gauge", "mode": "basic"}),
            set_to("min", 0),
            set_to("max", 1),
        ]
    elif column.steps:
        cell.append(set_to("custom.cellOptions", {"type": "color-text"}))
    if column.steps:
        cell.append(set_to("thresholds", _thresholds(column.steps).build()))
        cell.append(set_to("color", {"mode": "thresholds"}))
    mappings: list[object] = []
    if column.names:
        words = {value: {"text": text} for value, text in column.names.items()}
        mappings.append({"type": "value", "options": words})
    if column.beyond is not None:
        limit, text = column.beyond
        beyond = {"from": limit, "to": None, "result": {"text": text, "color": GOOD}}
        mappings.append({"type": "range", "options": beyond})
    if mappings:
        cell.append(set_to("mappings", mappings))
    return cell


def _thresholds(steps: Steps) -> dashboard_builders.ThresholdsConfig:
    return (
        dashboard_builders.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value=value, color=colour) for value, colour in steps])
    )


def _target(position: int, expr: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().ref_id(_ref(position)).expr(expr).datasource(SOURCE)


def _ref(position: int) -> str:
    """The name of a query in its panel: A, B, C."""
    return chr(ord("A") + position)
