"""Where a configured value came from, and what is wrong with it, in words an operator can use."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from telemetryd.errors import Problem

Path = tuple[str, ...]

# What may be a secret, in a key that wants none: it must not get into a log.
_SECRET = re.compile(r"token|passw|secret|credential|authorization|api.?key", re.IGNORECASE)
_OF_FILES = re.compile(r"_files?\Z")
_USER_INFO = re.compile(r"://[^/@\s'\"]*@")


class Sources:
    """Tables merged from several files; for each key, which file set it last."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self._origins: dict[Path, str] = {}

    def merge(self, origin: str, tables: Mapping[str, Any]) -> None:
        self._merge(origin, self.tree, tables, ())

    def _merge(
        self, origin: str, into: dict[str, Any], tables: Mapping[str, Any], path: Path
    ) -> None:
        for key, value in tables.items():
            here = (*path, key)
            self._origins[here] = origin
            if isinstance(value, Mapping):
                if not isinstance(into.get(key), dict):
                    into[key] = {}
                self._merge(origin, into[key], value, here)
            else:
                into[key] = value

    def table(self, path: Path, problems: list[Problem]) -> dict[str, Any]:
        """The table at `path`, empty if there is none; a problem if something else stands there."""
        here: dict[str, Any] = self.tree
        for length, key in enumerate(path, 1):
            here = here.get(key, {})
            if not isinstance(here, dict):
                problem = self.problem(path[:length], "this is a table: write its keys under it")
                if problem not in problems:
                    problems.append(problem)
                return {}
        return here

    def problem(self, path: Path, allowed: str) -> Problem:
        origin = "defaults"
        for length in range(len(path), 0, -1):
            if path[:length] in self._origins:
                origin = self._origins[path[:length]]
                break
        value: Any = self.tree
        for key in path:
            if isinstance(value, list) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            else:
                value = value.get(key) if isinstance(value, dict) else None
        return Problem(origin, ".".join(path), _shown(path, value), allowed)


def _shown(path: Path, value: object) -> str:
    """A value as it is shown, without what may be secret."""
    if value is None or isinstance(value, dict):
        return ""
    if isinstance(value, bool):
        return repr(value).lower()
    if "headers" in path or any(_SECRET.search(key) and not _OF_FILES.search(key) for key in path):
        return "(not shown)"
    return _USER_INFO.sub("://(not shown)@", repr(value))


def closest(key: str, known: Iterable[str]) -> str:
    """What to say of a key that does not exist."""
    names = list(known)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    if near:
        return f'there is no such key; did you mean "{near[0]}"?'
    return f"there is no such key; known are {', '.join(names)}"


def model_problems(
    model: type[BaseModel], table: Mapping[str, Any], path: Path, sources: Sources
) -> list[Problem]:
    """Everything the model has against the table; empty if it is fine."""
    try:
        model.model_validate(table)
    except ValidationError as refused:
        found: dict[Path, str] = {}
        for error in refused.errors(include_url=False):
            where = (*path, *_keys(error["loc"], table))
            if error["type"] == "extra_forbidden":
                found[where] = closest(where[-1], _keys_beside(model, error["loc"]))
            elif where in found:  # one line for each branch of a union
                found[where] += f", or {_lower(error['msg'])}"
            else:
                found[where] = _lower(error["msg"])
        return [sources.problem(where, allowed) for where, allowed in found.items()]
    except Exception as error:  # noqa: BLE001  (the model may be a plugin's)
        return [sources.problem(path, f"cannot be checked: {error!r}")]
    return []


def _keys_beside(model: type[BaseModel], loc: Sequence[int | str]) -> Iterable[str]:
    """The keys that may stand where `loc` ends: those of the model itself, or of one in a table
    of it (`dict[str, Model]`)."""
    here: Any = model
    for part in loc[:-1]:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = None if field is None else field.annotation
        else:
            here = (get_args(here) or (None,))[-1]
    return (here if isinstance(here, type) and issubclass(here, BaseModel) else model).model_fields


def _keys(loc: Sequence[int | str], table: Mapping[str, Any]) -> list[str]:
    """A location without the names of union branches, which are pydantic's and no keys."""
    keys: list[str] = []
    here: Any = table
    for position, part in enumerate(loc):
        if position and not (isinstance(here, dict) and part in here) and isinstance(part, str):
            break
        keys.append(str(part))
        here = here.get(part) if isinstance(here, dict) else None
    return keys


def _lower(message: str) -> str:
    text = message.removeprefix("Value error, ").removeprefix("Input ")
    text = text.replace("valid tuple", "list")
    return text[:1].lower() + text[1:]
