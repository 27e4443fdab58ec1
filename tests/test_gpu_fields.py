"""Field values: how each type is decoded, and what each code of a single field leads to."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.nvml import FakeNvml

from telemetryd.collectors.gpu_nvidia.driver import Driver, NvmlError
from telemetryd.collectors.gpu_nvidia.fields import Field, FieldValues
from telemetryd.collectors.gpu_nvidia.identity import handle_of
from telemetryd.gpus import ENERGY, TEMPERATURE
from telemetryd.metric import Point, Series

GPU = "0", "GPU-1"
MEMORY, OTHER = TEMPERATURE.at(*GPU, "memory"), TEMPERATURE.at(*GPU, "other")
# Any two ids that the fake GPU answers.
FIRST = Field("first", 82, (MEMORY,))
SECOND = Field("second", 83, (ENERGY.at(*GPU),))
TYPES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")


class Asked:
    """Fields of a fake GPU, with the faults that they report."""

    def __init__(self, fake: FakeNvml, driver: Driver) -> None:
        self.fake = fake
        self.driver = driver
        self.faults: list[NvmlError] = []
        self.values: FieldValues

    def ask(self, *fields: Field) -> dict[Series, float]:
        self.values = FieldValues(
            self.driver, handle_of(self.driver, 0), fields, self.faults.append
        )
        return self.read()

    def read(self) -> dict[Series, float]:
        points: list[Point] = []
        assert self.values.read(points) == 0
        assert len(dict(points)) == len(points)
        return dict(points)

    def answer(self, field: Field, value: float, kind: int) -> None:
        number = f"fi.{field.field}"
        self.fake.gpu(0, {number: value, f"{number}.type": kind})

    def refuse(self, field: Field, code: int | None) -> None:
        self.fake.gpu(0, {f"fi.{field.field}.ret": code})

    @property
    def calls(self) -> int:
        return self.fake.call_counts()["nvmlDeviceGetFieldValues"]


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    fake = FakeNvml(tmp_path, gpus=1)
    driver = Driver(str(fake.library))
    driver.open()
    yield Asked(fake, driver)
    driver.close()
    assert fake.misuse == 0


# Decoding


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (0, 1234.5), (0, -2.25), (1, 4_294_967_295), (2, 1 << 40), (3, (1 << 63) + 5),
        (4, -5), (4, 1 << 62), (4, -(1 << 63)), (5, -8), (5, 2_147_483_647), (6, 65_535),
    ],
)  # fmt: skip
def test_a_value_of_each_type_arrives_as_it_was_sent(asked: Asked, kind: int, value: float) -> None:
    asked.answer(FIRST, value, kind)
    assert asked.ask(FIRST) == {MEMORY: value}


class Echo:
    """A driver that gives every field the same type and bits."""

    def __init__(self, kind: int, raw: int) -> None:
        self._entry = struct.pack("=IiQ", kind, 0, raw)

    def function(self, _name: str) -> Any:
        return self._answer

    def _answer(self, _handle: object, count: int, array: Any) -> int:
        for position in range(count):
            struct.pack_into("=16s", array, 40 * position + 24, self._entry)
        return 0


@given(st.integers(0, 6), st.integers(0, (1 << 64) - 1))
def test_any_bits_of_any_type_are_the_number_that_the_binding_reads(kind: int, raw: int) -> None:
    values = FieldValues(Echo(kind, raw), None, [FIRST], print)  # type: ignore[arg-type]
    points: list[Point] = []
    values.read(points)
    expected = getattr(
        pynvml.c_nvmlValue_t.from_buffer_copy(raw.to_bytes(8, "little")), TYPES[kind]
    )
    ((_, value),) = points
    assert value == expected or (math.isnan(value) and math.isnan(expected))


def test_the_array_is_laid_out_as_the_binding_has_it() -> None:
    layout = pynvml.c_nvmlFieldValue_t
    assert struct.calcsize("=24xIiQ") == layout.value.offset + 8
    offsets = layout.fieldId.offset, layout.scopeId.offset, layout.valueType.offset
    assert (*offsets, layout.nvmlReturn.offset, layout.value.offset) == (0, 4, 24, 28, 32)


def test_a_value_of_an_unknown_type_is_absent_and_the_others_are_read(asked: Asked) -> None:
    asked.answer(FIRST, 5, kind=7)
    assert set(asked.ask(FIRST, SECOND)) == set(SECOND.to)
    assert asked.values.missing == {"first": "unsupported"}
    assert set(asked.read()) == set(SECOND.to)


def test_a_value_is_scaled_or_divided_and_goes_to_each_of_its_series(asked: Asked) -> None:
    asked.answer(FIRST, 1500, kind=3)
    scaled = Field("scaled", 82, (MEMORY, OTHER), scale=1024)
    assert asked.ask(scaled) == {MEMORY: 1500 * 1024, OTHER: 1500 * 1024}
    divided = Field("divided", 82, (MEMORY,), per=1000)
    assert asked.ask(divided) == {MEMORY: 1.5}


def test_a_field_is_asked_for_with_its_scope(asked: Asked) -> None:
    asked.fake.gpu(0, {"fi.82.1": 11, "fi.82.2": 22})
    one, two = Field("one", 82, (MEMORY,), scope=1), Field("two", 82, (OTHER,), scope=2)
    assert asked.ask(one, two) == {MEMORY: 11, OTHER: 22}


def test_no_fields_at_all_take_no_call(asked: Asked) -> None:
    asked.refuse(FIRST, 3)
    assert asked.ask(FIRST) == {}
    calls = asked.calls
    assert asked.read() == {}
    assert asked.calls == calls


# Codes


@pytest.mark.parametrize("code", [2, 3, 13, 25, 26])
def test_a_field_that_is_refused_at_the_start_is_not_asked_for(asked: Asked, code: int) -> None:
    asked.refuse(FIRST, code)
    assert set(asked.ask(FIRST, SECOND)) == set(SECOND.to)
    assert asked.values.names == {"second"}
    assert asked.faults == []
    assert asked.values.missing == {"first": "unsupported"}
    asked.refuse(FIRST, None)
    assert set(asked.read()) == set(SECOND.to), "not before the library is opened again"


def test_a_field_that_is_refused_later_is_left_out_from_then_on(asked: Asked) -> None:
    assert set(asked.ask(FIRST, SECOND)) == {MEMORY, *SECOND.to}
    asked.refuse(FIRST, 3)
    assert set(asked.read()) == set(SECOND.to)
    assert asked.values.names == {"second"}
    assert asked.faults == []


@pytest.mark.parametrize("code", [6, 21, 27])
def test_a_field_without_a_value_is_absent_until_it_has_one(asked: Asked, code: int) -> None:
    asked.refuse(FIRST, code)
    assert set(asked.ask(FIRST, SECOND)) == set(SECOND.to)
    assert (asked.values.missing, asked.faults) == ({}, [])
    asked.refuse(FIRST, None)
    assert MEMORY in asked.read()


def test_a_field_that_fails_is_a_fault_each_time_and_comes_back(asked: Asked) -> None:
    asked.refuse(FIRST, 999)
    assert MEMORY not in asked.ask(FIRST, SECOND)
    assert [error.code for error in asked.faults] == [999, 999], "when looked for, and when read"
    assert "first (field 82)" in str(asked.faults[0])
    asked.refuse(FIRST, None)
    assert MEMORY in asked.read()
    assert len(asked.faults) == 2


def test_a_field_without_permission_is_tried_again_only_when_told_to(asked: Asked) -> None:
    asked.refuse(FIRST, 4)
    assert MEMORY not in asked.ask(FIRST, SECOND)
    assert asked.values.missing == {"first": "permission"}
    asked.read()
    asked.read()
    assert [error.reason for error in asked.faults] == ["permission"]
    asked.values.try_denied()
    assert [error.reason for error in asked.faults] == ["permission"] * 2
    asked.refuse(FIRST, None)
    assert MEMORY not in asked.read()
    asked.values.try_denied()
    asked.values.try_denied()
    assert set(asked.read()) == {MEMORY, *SECOND.to}
    assert asked.values.missing == {}


def test_a_permission_that_is_granted_too_late_is_unsupported_then(asked: Asked) -> None:
    asked.refuse(FIRST, 4)
    asked.ask(FIRST, SECOND)
    asked.refuse(FIRST, 3)
    asked.values.try_denied()
    assert set(asked.read()) == set(SECOND.to)
    assert asked.values.missing == {"first": "unsupported"}


@pytest.mark.parametrize("code", [1, 9, 15, 18, 28])
def test_a_gpu_that_goes_while_permissions_are_tried_keeps_its_other_fields(
    asked: Asked, code: int
) -> None:
    asked.refuse(FIRST, 4)
    asked.ask(FIRST, SECOND)
    asked.refuse(FIRST, code)
    with pytest.raises(NvmlError) as gone:
        asked.values.try_denied()
    assert gone.value.code == code
    assert asked.values.names == {"second"}
    assert set(asked.read()) == set(SECOND.to)
    asked.refuse(FIRST, None)
    asked.values.try_denied()
    assert MEMORY in asked.read(), "it is still to be tried"


def test_a_code_of_one_field_that_says_the_gpu_is_lost_is_one_of_the_whole_reading(
    asked: Asked,
) -> None:
    asked.ask(FIRST, SECOND)
    asked.refuse(FIRST, 15)
    assert asked.values.read([]) == 15
    with pytest.raises(NvmlError) as gone:
        asked.ask(FIRST, SECOND)
    assert gone.value.reason == "lost"


def test_a_driver_without_field_values_lacks_them_all(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=1, without=["nvmlDeviceGetFieldValues"])
    driver = Driver(str(fake.library))
    driver.open()
    values = FieldValues(driver, handle_of(driver, 0), [FIRST, SECOND], print)
    assert values.missing == {"first": "old_driver", "second": "old_driver"}
    points: list[Point] = []
    assert (values.read(points), points) == (0, [])
    driver.close()


def test_fields_that_are_gone_from_the_array_leave_nothing_behind(asked: Asked) -> None:
    third = Field("third", 94, (OTHER,))
    before = asked.ask(FIRST, SECOND, third)
    asked.refuse(SECOND, 3)
    after = asked.read() | asked.read()
    assert after == {series: value for series, value in before.items() if series not in SECOND.to}
