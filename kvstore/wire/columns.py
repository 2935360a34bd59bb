"""Structs in columns of one length: making and reading a message for each would be most of their cost.

Only those travel so whose other fields, those without a column, have their defaults. That is derived from the
fields of both sides, so a field that is added to a struct is never lost: who sets it travels in a message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kvstore.protocol.derive import function
from kvstore.protocol.fields import REQUIRED, Field, fields_of
from kvstore.wire.codec import UNITS, Descriptor, plural, same_length


class Columns:
    """The columns of one struct in one message.

    `others` are columns of the message that say something beside the struct; `given` are fields whose columns
    the caller fills, with values that stand in for those of the structs. Where the items that are to be sent
    are not the structs themselves, source code tells of an item `s` where its struct is, as `place`, and
    whether it is one that may travel in columns at all, as `only`.

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
    ) -> None:
        fields = fields_of(struct)
        columns = {field.name: column for field in fields if (column := _column(field, message))}
        rest = [field for field in fields if field.name not in columns]
        if {*columns.values(), *others} != set(message.fields_by_name):
            raise TypeError(f"{message.full_name} has a column that is no field of {struct.__name__}")
        if any(field.default is REQUIRED or field.default for field in rest):
            raise TypeError(f"{struct.__name__} cannot leave out {[field.name for field in rest]}")
        changed = [f"{place}.{field.name}" for field in rest]
        unfit = " or ".join([f"not ({only})", *changed] if only else changed) or "False"
        lines = [
            f"plain = [s for s in items if not ({unfit})]",
            f"return plain, [s for s in items if {unfit}] if len(plain) < len(items) else ()",
        ]
        self.split = function("split", "items", lines, {"struct": struct})
        fills = [
            f"m.{column}.extend([{place}.{name} for s in items])"
            for name, column in columns.items()
            if name not in given
        ]
        self.fill = function("fill_columns", "m, items", fills, {})
        names = {"struct": struct, "same_length": same_length, "what": struct.__name__}
        self.read = function("read_columns", "m", _reading(fields, columns, others), names)


def _column(field: Field, message: Descriptor) -> str:
    """The column of a field; empty when it has none."""
    names = (plural(field.name) + unit for unit in UNITS)
    return next((name for name in names if name in message.fields_by_name), "")


def _reading(fields: Sequence[Field], columns: dict[str, str], others: Sequence[str]) -> list[str]:
    lists = ", ".join(f"m.{column}" for column in columns.values())
    check = f"same_length(what, {', '.join(f'm.{column}' for column in (*others, *columns.values()))})"
    if [*columns] == [field.name for field in fields[: len(columns)]]:
        return [check, f"return list(map(struct, {lists}))"]
    seconds = {field.name for field in fields if field.type is float}
    values = ", ".join(f"{name}={name} / 1000" if name in seconds else f"{name}={name}" for name in columns)
    return [check, f"return [struct({values}) for {', '.join(columns)} in zip({lists})]"]
