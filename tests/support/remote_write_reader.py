"""Reads remote write with Google's protobuf, from a description of the messages made here.

It says proto2 where Prometheus says proto3: the bytes mean the same, but zeros are kept apart from
what was left out, so that what was read can be compared byte by byte.
https://prometheus.io/docs/specs/prw/remote_write_spec/#protocol
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

STALE = 0x7FF0000000000002

_Field = descriptor_pb2.FieldDescriptorProto
# Number, name, type and, of a message, its name; whether there may be several.
_MESSAGES = {
    "WriteRequest": [(1, "timeseries", "TimeSeries", True)],
    "TimeSeries": [(1, "labels", "Label", True), (2, "samples", "Sample", True)],
    "Label": [(1, "name", _Field.TYPE_STRING, False), (2, "value", _Field.TYPE_STRING, False)],
    "Sample": [
        (1, "value", _Field.TYPE_DOUBLE, False),
        (2, "timestamp", _Field.TYPE_INT64, False),
    ],
}


def _write_request():
    file = descriptor_pb2.FileDescriptorProto(
        name="telemetryd_test.proto", package="telemetryd_test", syntax="proto2"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field_name, kind, many in fields:
            field = message.field.add(name=field_name, number=number)
            field.label = _Field.LABEL_REPEATED if many else _Field.LABEL_OPTIONAL
            if isinstance(kind, str):
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".telemetryd_test.{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("telemetryd_test.WriteRequest")
    )


WriteRequest = _write_request()


@dataclass(frozen=True)
class Sent:
    """One sample: labels in the order in which they were sent; `bits` of the value."""

    labels: tuple[tuple[str, str], ...]
    bits: int
    ms: int

    @property
    def value(self) -> float:
        return struct.unpack("<d", struct.pack("<Q", self.bits))[0]

    @property
    def is_stale(self) -> bool:
        return self.bits == STALE

    @property
    def name(self) -> str:
        return dict(self.labels)["__name__"]


def series(data: bytes) -> list[list[Sent]]:
    """The time series of a body that is unpacked, each with its samples. Fails for what is no
    message or has fields that nobody knows."""
    message = WriteRequest()
    assert message.ParseFromString(data) == len(data)
    # Fields that it does not know, or in another order, it would write in other places.
    assert message.SerializeToString() == data
    return [
        [
            Sent(
                tuple((label.name, label.value) for label in one.labels),
                struct.unpack("<Q", struct.pack("<d", sample.value))[0],
                sample.timestamp,
            )
            for sample in one.samples
        ]
        for one in message.timeseries
    ]


def samples(data: bytes) -> list[Sent]:
    """All samples of a body that is unpacked."""
    return [sample for one in series(data) for sample in one]
