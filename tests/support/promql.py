"""What an expression of PromQL speaks of: metrics, labels, and the vectors that it filters."""

from __future__ import annotations

import re

# An expression that Prometheus was given, so that this need not find mistakes in it.
_SELECTOR = re.compile(r"\b(?!group_)([a-z][a-z0-9]*_[a-z0-9_]+|up)\b(?!\s*\()(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'([a-z_]+)\s*(?:=~|!=|!~|=)\s*"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SET_OPERATOR = re.compile(r"\s(?:and|or|unless)\b(?:\s+(?:on|ignoring)\s*\([^)]*\))?\s")
_COMPARISON = re.compile(r"\s(?:==|!=|<=|>=|<|>)\s[-0-9.e+* ]+\Z")
_STRING = re.compile(r'"[^"]*"')


def selectors(expr: str) -> list[tuple[str, list[str]]]:
    """Each metric that is selected, with the labels that are matched."""
    bare = _GROUPING.sub(" ", expr)
    return [(match[1], _MATCHER.findall(match[2] or "")) for match in _SELECTOR.finditer(bare)]


def grouping_labels(expr: str) -> set[str]:
    """The labels that its operators group and join by."""
    lists = ",".join(_GROUPING.findall(_STRING.sub('""', expr)))
    return {label.strip() for label in lists.split(",")} - {""}


def operands(expr: str) -> list[str]:
    """The vectors that `and`, `or` and `unless` join, without the comparison that filters each.

    absent(x) stands for x: it is about data that is not there.
    """
    expr = " ".join(expr.split())
    parts = _split(expr)
    if len(parts) > 1:
        return [operand for part in parts for operand in operands(part)]
    unfiltered = _COMPARISON.sub("", expr)
    for opening in ("absent(", "("):
        if unfiltered.startswith(opening) and _closes(unfiltered, len(opening) - 1):
            return operands(unfiltered[len(opening) : -1])
    return [unfiltered] if unfiltered == expr else operands(unfiltered)


def _split(expr: str) -> list[str]:
    """The parts between the set operators that stand in no brackets."""
    parts, begin = [], 0
    for match in _SET_OPERATOR.finditer(expr):
        before = _STRING.sub("", expr[: match.start()])
        if before.count("(") == before.count(")"):
            parts.append(expr[begin : match.start()])
            begin = match.end()
    return [*parts, expr[begin:]]


def _closes(expr: str, opening: int) -> bool:
    """Whether the bracket at `opening` closes at the very end."""
    depth = 0
    for position in range(opening, len(expr)):
        depth += {"(": 1, ")": -1}.get(expr[position], 0)
        if depth == 0:
            return position == len(expr) - 1
    return False
