"""docs/configuration.md, written from the models that check the configuration."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from telemetryd import plugins
from telemetryd.config import DEFAULT_FILE, ENV_PREFIX, SECTIONS
from telemetryd.exporter import ExporterConfig

_INTRODUCTION = f"""# Configuration

Generated from the models in the code by `make docs`; do not edit.

`telemetryd run` reads `{DEFAULT_FILE}` (or `--config FILE`) and then `conf.d/*.toml` beside it, in
the order of their names; a later file overrides single keys of an earlier one. A variable
`{ENV_PREFIX}WEB__LISTEN` overrides `web.listen`, and so on; a flag overrides both. Without any
file the defaults below hold. `telemetryd check-config FILE` says what is wrong and what is
allowed. SIGHUP (`systemctl reload telemetryd`) reads everything again; if something is wrong the
old configuration stays and `telemetryd_config_last_reload_successful` is 0.

Durations are numbers of seconds or texts such as "500ms", "10s", "5m", "24h"; sizes are numbers
of bytes or texts such as "64MiB". Secrets are never written here, only the files that hold them.

## [labels]

Any number of `name = "text"`: labels that every pushed point carries, such as `cluster` or
`rack`. Prometheus adds such labels itself, in its scrape configuration.
"""


def as_markdown() -> str:
    """The whole of docs/configuration.md."""
    models = dict(SECTIONS)
    for name in plugins.COLLECTORS:
        models[f"collectors.{name}"] = plugins.collector_class(name).Config
    models[f"exporters.{plugins.PROMETHEUS}"] = ExporterConfig
    for name in plugins.PUSH_EXPORTERS:
        models[f"exporters.{name}"] = plugins.push_exporter_class(name).Config
    return "\n".join([_INTRODUCTION, *(_section(*entry) for entry in models.items())])


def _section(title: str, model: type[BaseModel]) -> str:
    lines = [f"## [{title}]", "", "| key | type | default | what |", "|---|---|---|---|"]
    tables = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            tables.append(_section(f"{title}.{name}", field.annotation))
            continue
        cells = (f"`{name}`", _type(field.annotation), _default(field), field.description or "")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, "", *tables])


def _type(annotation: Any) -> str:
    return " or ".join(dict.fromkeys(_types(annotation)))


def _types(annotation: Any) -> Iterator[str]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from _types(argument)
    elif origin is typing.Annotated:
        yield from _types(arguments[0])
    elif origin is typing.Literal:
        yield from (json.dumps(value) for value in arguments)
    elif origin in (tuple, list, frozenset):
        yield "list of " + _type(arguments[0])
    elif origin is dict:
        yield "table"
    elif annotation is types.NoneType:
        yield "unset"
    else:
        yield {str: "text", float: "number", int: "whole number", bool: "true/false"}.get(
            annotation, getattr(annotation, "__name__", str(annotation))
        )


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "unset"
    if isinstance(value, tuple | frozenset):
        value = list(value)
    return f"`{json.dumps(value)}`"
