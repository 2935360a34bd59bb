"""Structs in columns of one length: making and reading a message for each would be most of their cost.

Only those travel so whose other fields, those without a column, have their defaults. That is derived from the
fields of both sides, so a field that is added to a struct is never lost: who sets it travels in a message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

from kvstore.protocol.derive import function
from kvstore.protocol.fields import REQUIRED, Field, fields_of, is_record
from kvstore.wire.codec import UNITS, Descriptor, plural, same_length


class _Place(NamedTuple):
    """A field that may have a column: where it is in a struct, and its column, empty when it has none."""

    path: str
    field: Field
    column: str


class Columns:
    """The columns of one struct in one message.

    `others` are columns of the message that say something beside the struct; `given` are fields whose columns
    the caller fills, with values that stand in for those of the structs. Where the items that are to be sent
    are not the structs themselves, source code tells of an item `s` where its struct is, as `place`, and
    whether it is one that may travel in columns at all, as `only`. `alone` is a field that is a tuple of
    records: structs with just one of them travel in columns, and those of the record are among them.

    Raises TypeError for a column that is of no field, and for a field without one that has no default, or one
    that is not empty.
    """

    split: Callable[[Sequence[Any]], tuple[Sequence[Any], Sequence[Any]]]
    """The items that may travel in columns, those with the default in every field without one; the others."""
    fill: Callable[[Any, Sequence[Any]], None]
    """Add items to the columns of a message."""
    read: Callable[[Any], list[Any]]
    """The structs in a message; raises InvalidRequest for columns of different lengths."""

    def __init__(
        self,
        struct: type,
        message: Descriptor,
        others: Sequence[str] = (),
        given: Sequence[str] = (),
        place: str = "s",
        only: str = "",
        alone: str = "",
    ) -> None:
        places = _places(struct, message, alone)
        columns = [each for each in places if each.column]
        rest = [each for each in places if not each.column]
        if {*(each.column for each in columns), *others} != set(message.fields_by_name):
            raise TypeError(f"{message.full_name} has a column that is no field of {struct.__name__}")
        if any(field.default is REQUIRED or field.default for _, field, _ in rest):
            raise TypeError(f"{struct.__name__} cannot leave out {[field.name for _, field, _ in rest]}")
        reasons = [f"not ({only})"] if only else []
        reasons += [f"len({place}.{alone}) != 1"] if alone else []
        unfit = " or ".join([*reasons, *(f"{place}.{path}" for path, _, _ in rest)]) or "False"
        lines = [
            f"plain = [s for s in items if not ({unfit})]",
            f"return plain, [s for s in items if {unfit}] if len(plain) < len(items) else ()",
        ]
        self.split = function("split", "items", lines, {"struct": struct})
        fills = [
            f"m.{column}.extend([{place}.{path} for s in items])"
            for path, field, column in columns
            if field.name not in given
        ]
        self.fill = function("fill_columns", "m, items", fills, {})
        names = {"struct": struct, "same_length": same_length, "what": struct.__name__, "repeat": repeat}
        names |= {f"one_{field.name}": field.type for field in fields_of(struct) if field.name == alone}
        self.read = function("read_columns", "m", _reading(struct, columns, others, alone), names)


def _places(struct: type, message: Descriptor, alone: str) -> list[_Place]:
    places: list[_Place] = []
    for field in fields_of(struct):
        if field.name != alone:
            places.append(_Place(field.name, field, _column(field, message)))
        elif field.many and is_record(field.type):
            places += [
                _Place(f"{alone}[0].{inner.name}", inner, _column(inner, message))
                for inner in fields_of(field.type)
            ]
        else:
            raise TypeError(f"{struct.__name__}.{alone} is no tuple of records")
    return places


def _column(field: Field, message: Descriptor) -> str:
    """The column of a field; empty when it has none."""
    names = (plural(field.name) + unit for unit in UNITS)
    return next((name for name in names if name in message.fields_by_name), "")


def _reading(struct: type, columns: Sequence[_Place], others: Sequence[str], alone: str) -> list[str]:
    by_path = {each.path: each.column for each in columns}
    lists = ", ".join(f"m.{name}" for name in (*others, *by_path.values()))
    values = ", ".join(_values(struct, by_path, alone=alone))
    return [f"same_length(what, {lists})", f"return list(map(struct, {values}))"]


def _values(record: type, columns: Mapping[str, str], where: str = "", alone: str = "") -> list[str]:
    """For each field of a record, which is at `where`, what gives its values in one item after the other.

    They are those of its column, sliced, which is quicker than to go through it; without one the default, up
    to the last field that has one.
    """
    values: list[str] = []
    for field in fields_of(record):
        column = columns.get(where + field.name)
        if field.name == alone:
            inner = ", ".join(_values(field.type, columns, f"{alone}[0]."))
            values.append(f"zip(map(one_{alone}, {inner}))")
        elif column is None:
            values.append(f"repeat({field.default!r})")
        elif field.type is float:
            values.append(f"[value / 1000 for value in m.{column}[:]]")
        else:
            values.append(f"m.{column}[:]")
    while values[-1].startswith("repeat("):
        values.pop()
    return values
