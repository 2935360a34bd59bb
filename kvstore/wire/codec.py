"""Structs of kvstore.protocol as protobuf messages and back: derived from the fields of both.

A field has one name on both sides; in the .proto it may end in its unit (`timeout_ms`). A list of records
(NamedTuples) travels in columns of one length, each named by the plural of its field; a union as a oneof of
its name, whose fields are named after the structs. What does not fit is a TypeError at the first import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from functools import cache
from typing import Any, NamedTuple, TypeAlias

from kvstore.errors import Corruption, InvalidRequest, KVError
from kvstore.protocol.derive import function
from kvstore.protocol.fields import MAX_INCARNATION, REQUIRED, Field, Kind, fields_of
from kvstore.ring import ClusterState, decode_state, encode_state
from kvstore.wire.budget import ITEMS_OF_A_LIST, check_items
from kvstore.wire.errors import error_from_wire, error_to_wire

Descriptor: TypeAlias = Any
FieldDescriptor: TypeAlias = Any
"""The types of protobuf have two unrelated classes for each."""

UNITS = ("", "_ms", "_s")
"""What the name of a field in a message may have behind it."""
_MOST = {Kind.INCARNATION: MAX_INCARNATION}
"""What a number counts as at most, when it is read."""


class Code(NamedTuple):
    """The source that copies something between a struct `s` and a message `m`."""

    fill: list[str]
    """Statements that set it in a new message."""
    read: str
    """The expression that is its value in the struct."""
    uses: list[str]
    """The fields of the message that it takes."""


class Source:
    """The code for the fields of one struct in one message, and the names in that code."""

    def __init__(self, struct: type, message: Descriptor) -> None:
        self.struct = struct
        self._message = message
        self.names: dict[str, Any] = {struct.__name__: struct, "same_length": same_length, "few": few}
        codes = [self._code(field) for field in fields_of(struct)]
        self.fill = [line for code in codes for line in code.fill]
        self.read = f"{struct.__name__}({', '.join(code.read for code in codes)})"
        unused = set(message.fields_by_name) - {name for code in codes for name in code.uses}
        if unused:
            raise TypeError(f"{message.full_name} has {sorted(unused)}, {struct.__name__} has not")

    def _code(self, field: Field) -> Code:
        if len(field.types) > 1:
            return self._union(field)
        if field.many and hasattr(field.type, "_fields"):
            return self._columns(field)
        wire = self._wire_field(field)
        if wire.is_repeated != field.many:
            raise TypeError(f"{wire.full_name} and {self.struct.__name__}.{field.name}: one is a list")
        if field.many:
            return self._list(field, wire)
        if wire.message_type is not None:
            return self._part(field, wire)
        return self._scalar(field, wire)

    def _wire_field(self, field: Field) -> FieldDescriptor:
        return field_for(self._message, field.name, f"{self.struct.__name__}.{field.name}")

    def _scalar(self, field: Field, wire: FieldDescriptor) -> Code:
        value, read = f"s.{field.name}", f"m.{wire.name}"
        set_to = value
        if wire.enum_type is not None:
            numbers, read_enum = _enumeration(field, wire.enum_type)
            self.names |= {f"{field.name}_numbers": numbers, f"{field.name}_of": read_enum}
            set_to, read = f"{field.name}_numbers[{value}]", f"{field.name}_of({read})"
        elif field.type is float:
            set_to, read = f"round({value} * 1000)", f"{read} / 1000"
        elif field.kind is Kind.CLUSTER_STATE:
            self.names |= {"encode_state": encode_state, "state_of": _state_of}
            set_to, read = f"encode_state({value})", f"state_of({read})"
        elif field.kind in _MOST:
            read = f"min({read}, {_MOST[field.kind]})"
        statement = f"m.{wire.name} = {set_to}"
        if field.default is not REQUIRED:
            if field.default:
                raise TypeError(f"{self.struct.__name__}.{field.name}: a field that is not sent is read as 0")
            statement = f"if {value}: {statement}"
        return Code([statement], read, [wire.name])

    def _list(self, field: Field, wire: FieldDescriptor) -> Code:
        if wire.message_type is None:
            fill, read = f"m.{wire.name}.extend(s.{field.name})", f"tuple(few(m.{wire.name}))"
            return Code([fill], read, [wire.name])
        codec = codec_of(field.type, wire.message_type)
        self.names |= {f"fill_{field.name}": codec.fill, f"read_{field.name}": codec.read}
        fill = f"for item in s.{field.name}: fill_{field.name}(m.{wire.name}.add(), item)"
        return Code([fill], f"tuple([read_{field.name}(item) for item in few(m.{wire.name})])", [wire.name])

    def _part(self, field: Field, wire: FieldDescriptor) -> Code:
        codec = codec_of(field.type, wire.message_type)
        self.names |= {f"fill_{field.name}": codec.fill, f"read_{field.name}": codec.read}
        fill, read = f"fill_{field.name}(m.{wire.name}, s.{field.name})", f"read_{field.name}(m.{wire.name})"
        if field.optional:
            fill = f"if s.{field.name} is not None: {fill}"
            read = f"{read} if m.HasField({wire.name!r}) else None"
        return Code([fill], read, [wire.name])

    def _columns(self, field: Field) -> Code:
        """Records in columns; positions of those that are None are a column `unknown`."""
        columns = [plural(name) for name in field.type._fields]
        record = field.type.__name__
        self.names |= {record: field.type, f"no_{record}": field.type(*[0] * len(columns))}
        items, lines = f"s.{field.name}", []
        lists = ", ".join(f"m.{column}" for column in columns)
        read = f"tuple(map({record}, {lists})) if same_length({self.struct.__name__!r}, {lists}) else ()"
        if field.optional:
            lines += [f"known = [item or no_{record} for item in s.{field.name}]"]
            lines += [f"m.unknown.extend([i for i, item in enumerate(s.{field.name}) if item is None])"]
            self.names["some"] = _some
            items, read, columns = "known", f"some({read}, m.unknown)", [*columns, "unknown"]
        for name in field.type._fields:
            lines.append(f"m.{plural(name)}.extend([item.{name} for item in {items}])")
        for column in columns:
            if not self._message.fields_by_name[column].is_repeated:
                raise TypeError(f"{self._message.full_name}.{column} is no column")
        return Code(lines, read, columns)

    def _union(self, field: Field) -> Code:
        oneof = Oneof(field.types, self._message, field.name)
        self.names[f"{field.name}_of"] = oneof
        fill = f"{field.name}_of.fills[type(s.{field.name})](m, s.{field.name})"
        return Code([fill], f"{field.name}_of.reads[m.WhichOneof({field.name!r})](m)", list(oneof.fields))


class Oneof:
    """A union of structs in a oneof: how each is put into a new message, how the one that it has is read.

    Its fields are named after the structs. `fills` return what they have filled.
    """

    def __init__(self, structs: Iterable[type], message: Descriptor, name: str) -> None:
        self._name = name
        self.fills: dict[type, Callable[[Any, Any], Any]] = {}
        self.reads: dict[str | None, Callable[[Any], Any]] = {None: self._nothing}
        self.fields = [field.name for field in message.oneofs_by_name[name].fields]
        by_name = {struct.__name__.lower(): struct for struct in structs}
        if set(by_name) != set(self.fields):
            raise TypeError(f"{message.full_name}.{name} has {self.fields}, and should have {list(by_name)}")
        for field, struct in by_name.items():
            part = codec_of(struct, message.fields_by_name[field].message_type)
            names = {"fill": part.fill, "read": part.read}
            lines = [f"part = m.{field}", "fill(part, s)", "return part"]
            self.fills[struct] = function(f"fill_{field}", "m, s", lines, names)
            self.reads[field] = function(f"read_{field}", "m", [f"return read(m.{field})"], names)

    def fill(self, m: Any, s: Any) -> Any:
        """Put a struct into a new message; returns the part that holds it."""
        return self.fills[type(s)](m, s)

    def read(self, m: Any) -> Any:
        """The struct in a message; raises InvalidRequest when there is none."""
        return self.reads[m.WhichOneof(self._name)](m)

    def _nothing(self, _message: Any) -> Any:
        raise InvalidRequest(self._name, "a message that should hold one holds none")


class Codec(NamedTuple):
    """The two ways of one struct."""

    fill: Callable[[Any, Any], None]
    """Set the fields of a new message, but those that have their default: half the time of a constructor."""
    read: Callable[[Any], Any]
    """The struct; raises InvalidRequest for a message that is none."""


@cache
def codec_of(struct: type, message: Descriptor) -> Codec:
    """How this struct travels as this message; raises TypeError when their fields do not match."""
    if struct is KVError:
        return Codec(lambda m, error: m.CopyFrom(error_to_wire(error)), error_from_wire)
    fields = fields_of(struct)
    if [field.types for field in fields] == [(KVError,)] and "error" not in message.fields_by_name:
        (field,) = fields  # a reply that is nothing but an error travels as that error
        return Codec(
            lambda m, s: m.CopyFrom(error_to_wire(getattr(s, field.name))),
            lambda m: struct(error_from_wire(m)),
        )
    source = Source(struct, message)
    return Codec(
        function(f"fill_{struct.__name__}", "m, s", source.fill or ["pass"], source.names),
        function(f"read_{struct.__name__}", "m", [f"return {source.read}"], source.names),
    )


def field_for(message: Descriptor, name: str, whose: str = "") -> FieldDescriptor:
    """The field of a message for what has this `name` elsewhere (`whose`); raises TypeError without one."""
    for unit in UNITS:
        if found := message.fields_by_name.get(name + unit):
            return found
    raise TypeError(f"{message.full_name} has no field for {whose or name}")


def plural(name: str) -> str:
    """The column of a field."""
    return name if name.endswith("s") else name + "s"


def same_length(what: str, *columns: Sequence[object]) -> bool:
    """True; raises InvalidRequest for columns of different lengths, or of more than a list may have."""
    if len(set(map(len, columns))) != 1:
        raise InvalidRequest("frame", f"the columns of a {what} are incomplete")
    few(columns[0])
    return True


def few(items: Sequence[Any]) -> Sequence[Any]:
    """These items of a list; raises InvalidRequest when they are more than it may have."""
    check_items(len(items), ITEMS_OF_A_LIST, "items of one list")
    return items


def _state_of(document: bytes) -> ClusterState:
    try:
        return decode_state(document)
    except Corruption as error:
        raise InvalidRequest("state", error.reason) from error


def _enumeration(field: Field, wire: Descriptor) -> tuple[dict[Any, int], Callable[[int], Any]]:
    """Numbers by member, and the member of a number: they have one name, but for the prefix of protobuf."""
    kind: type[Enum] = field.type
    prefix = "".join(f"_{c}" if c.isupper() else c.upper() for c in wire.name)[1:] + "_"
    numbers: dict[Any, int] = {kind[v.name.removeprefix(prefix)]: v.number for v in wire.values if v.number}
    if set(numbers) != set(kind):
        raise TypeError(f"{wire.full_name} lacks a value of {kind.__name__}")
    if field.optional:
        numbers[None] = 0
    members = {number: member for member, number in numbers.items()}

    def read(number: int) -> Any:
        try:
            return members[number]
        except KeyError:
            raise InvalidRequest(field.name, f"{number} is no {kind.__name__}") from None

    return numbers, read


def _some(items: tuple[Any, ...], unknown: Iterable[int]) -> tuple[Any, ...]:
    absent = set(unknown)
    return tuple(None if i in absent else item for i, item in enumerate(items)) if absent else items
