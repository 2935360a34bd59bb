"""Each field of a message at its ends, one at a time, made from the descriptors of the protocol.

The bytes are written here and not by protobuf, which would refuse to write most of them. A field that is
added to a message is attacked without anybody thinking of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.plain import data_key, token

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
NUMBERS = (0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)
"""As unsigned: the upper half is negative where a field has a sign."""
REALS = (0.0, -0.0, -1.0, 5e-324, 1e308, float("inf"), float("-inf"), float("nan"))
KEY = data_key(token("b", b"attacked"), "b", b"attacked")
TEXTS = (
    b"",
    b"\0",
    b"n1\0",
    b"no such",
    b"\xff\xfe",
    b"n/incarnation",
    b"h" + KEY[1:],
    KEY[1:],
    KEY.replace(b"\0", b""),
    KEY[:1] + bytes(8) + KEY[9:],
    data_key(token("b", b""), "b", b""),
    data_key(token("b", b"k" * 4097), "b", b"k" * 4097),
    b"\x01\x92\x90\x90\x00",
    b"\xff" * 16,
    bytes(15),
    bytes(17),
    bytes(273),
    bytes(100_000),
)
"""Names, keys of other keyspaces or with other tokens, versions and lists that are none, what is huge."""

_FIXED = {
    FieldDescriptor.TYPE_FIXED64: "<Q",
    FieldDescriptor.TYPE_SFIXED64: "<q",
    FieldDescriptor.TYPE_FIXED32: "<I",
    FieldDescriptor.TYPE_SFIXED32: "<i",
    FieldDescriptor.TYPE_DOUBLE: "<d",
    FieldDescriptor.TYPE_FLOAT: "<f",
}
_WIRE = {"<Q": _FIXED64, "<q": _FIXED64, "<d": _FIXED64, "<I": _FIXED32, "<i": _FIXED32, "<f": _FIXED32}


def attacks(message: Message) -> Iterator[tuple[str, bytes]]:
    """The name of each attack and its bytes: on every field that `message`, a valid one, has something in."""
    for field, _ in message.ListFields():
        rest, only = type(message)(), type(message)()
        rest.CopyFrom(message)
        rest.ClearField(field.name)
        only.CopyFrom(message)
        for other in message.DESCRIPTOR.fields:
            if other.name != field.name:
                only.ClearField(other.name)
        head, own = rest.SerializeToString(), only.SerializeToString()
        yield f"{field.name} absent", head
        yield f"{field.name} twice", head + own + own
        another = _BYTES if _wire(field) != _BYTES else _VARINT
        yield f"{field.name} of another type", head + _tag(field, another) + b"\1\0"
        yield f"{field.name} cut off", head + _tag(field, _BYTES) + _varint(2**31) + b"x"
        for value, data in _values(field):
            yield f"{field.name} = {value}", head + data
        for name, data in _within(message, field):
            yield f"{field.name}.{name}", head + _tag(field, _BYTES) + _varint(len(data)) + data


def _within(message: Message, field: FieldDescriptor) -> Iterator[tuple[str, bytes]]:
    if field.type != FieldDescriptor.TYPE_MESSAGE:
        return
    value: Any = getattr(message, field.name)
    items = value if field.is_repeated else [value] if message.HasField(field.name) else []
    for item in items[:1]:
        yield from attacks(item)


def _values(field: FieldDescriptor) -> Iterator[tuple[str, bytes]]:
    """Each end of the field's type, as one value; a list that is packed has it once and three times."""
    for name, data in _ends(field):
        if field.is_repeated and _wire(field) != _BYTES:
            for count in (1, 3):
                packed = data * count
                yield f"{count} x {name}", _tag(field, _BYTES) + _varint(len(packed)) + packed
        elif _wire(field) == _BYTES:
            yield name, _tag(field, _BYTES) + _varint(len(data)) + data
        else:
            yield name, _tag(field, _wire(field)) + data


def _ends(field: FieldDescriptor) -> Iterator[tuple[str, bytes]]:
    if field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING):
        for i, text in enumerate(TEXTS):
            yield f"text {i}: {text[:20]!r}", text
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        yield "empty", b""
    elif field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        for real in REALS:
            if field.type == FieldDescriptor.TYPE_DOUBLE or not 3e38 < abs(real) < float("inf"):
                yield str(real), struct.pack(_FIXED[field.type], real)
    elif field.type in _FIXED:
        for number in NUMBERS:
            size = struct.calcsize(_FIXED[field.type])
            yield str(number), (number % 2 ** (8 * size)).to_bytes(size, "little")
    else:
        for number in NUMBERS:
            yield str(number), _varint(number)


def _wire(field: FieldDescriptor) -> int:
    if field.type in (
        FieldDescriptor.TYPE_BYTES,
        FieldDescriptor.TYPE_STRING,
        FieldDescriptor.TYPE_MESSAGE,
    ):
        return _BYTES
    return _WIRE[_FIXED[field.type]] if field.type in _FIXED else _VARINT


def _tag(field: FieldDescriptor, wire: int) -> bytes:
    return _varint(field.number << 3 | wire)


def _varint(number: int) -> bytes:
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes((*data, number))
