"""Many values of a GPU in one call: nvmlDeviceGetFieldValues.

The driver writes them into an array that is made once. Each value has a code and a type of its
own; unpacking the array costs half of what single calls do, and a quarter of reading the values
through the structures of nvidia-ml-py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from ctypes import Array, c_char
from dataclasses import dataclass

from telemetryd.collectors.gpu_nvidia.driver import (
    ABSENT,
    LIFECYCLE,
    NO_PERMISSION,
    OK,
    UNSUPPORTED,
    Driver,
    NvmlError,
)
from telemetryd.metric import Point, Series

# nvmlFieldValue_t begins with field and scope; after the times come type, code, and a union.
_QUESTION = struct.Struct("=II")
_ENTRY = struct.Struct("=24xIiQ")
_U32 = 1
# What a value of a type that is not known here counts as.
_OF_ANOTHER_VERSION = 25
_PLAIN = frozenset({2, 3})  # unsigned long, unsigned long long
_DECODE: dict[int, Callable[[int], float]] = {
    0: lambda raw: float(struct.unpack("=d", struct.pack("=Q", raw))[0]),
    4: lambda raw: raw - (1 << 64) if raw >> 63 else raw,
    5: lambda raw: (raw & 0xFFFFFFFF) - (1 << 32) if raw >> 31 & 1 else raw & 0xFFFFFFFF,
    6: lambda raw: raw & 0xFFFF,
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field id of nvml.h with its scope, and the series that its value is, times `scale` and
    divided by `per`."""

    name: str
    field: int
    to: tuple[Series, ...]
    scale: int = 1
    per: int = 1
    scope: int = 0

    def __str__(self) -> str:
        return f"{self.name} (field {self.field})"


class FieldValues:
    """The fields that this GPU answers, each asked for alone at the start: an old driver may
    refuse a whole call for one field that it does not know.

    `missing` has the names of the others with the reason. Raises NvmlError if the GPU is gone.
    """

    def __init__(
        self,
        driver: Driver,
        handle: object,
        fields: Iterable[Field],
        report: Callable[[NvmlError], None],
    ) -> None:
        self._handle = handle
        self._report = report
        self._function = driver.function("nvmlDeviceGetFieldValues")
        self.missing: dict[str, str] = {}
        self._denied: list[Field] = []
        fields = list(fields)
        if self._function is None:
            self.missing = {field.name: "old_driver" for field in fields}
            fields = []
        self._ask_for([one for one in fields if not self._refuses(one, self._code_of(one))])

    @property
    def names(self) -> frozenset[str]:
        """The fields that are read."""
        return frozenset(field.name for field in self._fields)

    def read(self, points: list[Point]) -> int:
        """A reading of them all."""
        if not self._fields:
            return OK
        assert self._function is not None
        code = self._function(self._handle, self._count, self._array)
        if code != OK:
            return code
        odd: list[tuple[Field, int]] | None = None
        for field, (kind, answer, raw) in zip(
            self._fields, _ENTRY.iter_unpack(self._array), strict=True
        ):
            if answer != OK:
                odd = odd or []
                odd.append((field, answer))
                continue
            value: float = raw
            if kind == _U32:
                value = raw & 0xFFFFFFFF
            elif kind not in _PLAIN:
                if kind not in _DECODE:
                    odd = odd or []
                    odd.append((field, _OF_ANOTHER_VERSION))
                    continue
                value = _DECODE[kind](raw)
            value = value * field.scale if field.per == 1 else value / field.per
            points += [(series, value) for series in field.to]
        return OK if odd is None else self._settle(odd)

    def try_denied(self) -> None:
        """Ask again for those that lacked a permission. Raises NvmlError if the GPU is gone."""
        for field in list(self._denied):
            code = self._code_of(field)
            if code == NO_PERMISSION:
                self._report(NvmlError(code, str(field)))
                continue
            self._denied.remove(field)
            del self.missing[field.name]
            self._ask_for([*self._fields, field])

    def _settle(self, odd: list[tuple[Field, int]]) -> int:
        """Leave out the fields that will not be answered; a code that concerns the whole GPU is
        returned."""
        leaving = []
        for field, code in odd:
            if code in LIFECYCLE:
                return code
            if self._refuses(field, code):
                leaving.append(field)
        if leaving:
            self._ask_for([field for field in self._fields if field not in leaving])
        return OK

    def _refuses(self, field: Field, code: int) -> bool:
        """Take note of a code; True if there is no use in asking again on the next tick."""
        if code == OK or code in ABSENT:
            return False
        if code in UNSUPPORTED:
            self.missing[field.name] = "unsupported"
            return True
        self._report(NvmlError(code, str(field)))
        if code == NO_PERMISSION:
            self.missing[field.name] = "permission"
            self._denied.append(field)
            return True
        return False

    def _code_of(self, field: Field) -> int:
        """What the driver says to one field alone."""
        assert self._function is not None
        array = _array_for([field])
        code = self._function(self._handle, 1, array)
        if code == OK:
            code = _ENTRY.unpack(array)[1]
        if code in LIFECYCLE:
            raise NvmlError(code, field.name)
        return code

    def _ask_for(self, fields: list[Field]) -> None:
        self._fields = fields
        self._count = len(fields)
        self._array = _array_for(fields)


def _array_for(fields: list[Field]) -> Array[c_char]:
    """The ids and scopes stay in it, the driver writes the rest."""
    array = (c_char * (_ENTRY.size * len(fields)))()
    for position, field in enumerate(fields):
        _QUESTION.pack_into(array, position * _ENTRY.size, field.field, field.scope)
    return array
