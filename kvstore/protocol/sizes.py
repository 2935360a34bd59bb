"""How many bytes a message takes, from its fields: about how many in a frame, and what of it is content.

Queues, frames and budgets count with the first, which is never too little; what an exchange of replicas moves
is told by the second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kvstore.errors import KVError
from kvstore.protocol.derive import function
from kvstore.protocol.fields import Field, Kind, fields_of, is_record


class _Measure(NamedTuple):
    """What is counted beside the byte strings of a message."""

    name: str
    message: int
    """For names, single numbers and flags."""
    item: int
    """For a byte string in a list."""
    numbers: dict[Kind | None, int]
    """For a number in a list, by its kind."""
    number: int
    """For one of another kind."""


_IN_A_FRAME = _Measure("size_of", 64, 16, {}, 10)
_CONTENT = _Measure("content_of", 0, 0, {Kind.TREE_N: 1, Kind.TREE_NODE: 1, Kind.TREE_HASH: 8}, 2)


def size_of(message: Any) -> int:
    """About how many bytes a message takes in a frame."""
    size: int = _SIZES[type(message)](message)
    return size


def item_size_of(record: Any) -> int:
    """How many of those bytes a record adds to a message that has it in a list."""
    size: int = _ITEMS[type(record)](record)
    return size


def content_of(message: Any) -> int:
    """About how many bytes of a message are no envelope: keys, versions, and numbers in lists."""
    size: int = _CONTENTS[type(message)](message)
    return size


class _Sizes(dict[type, Any]):
    """The function for each type, made when it is first asked for. `measure_part` is the one for parts."""

    def __init__(self, measure: _Measure, measure_part: Callable[[Any], int]) -> None:
        super().__init__()
        self._measure = measure
        self._names = {measure.name: measure_part}

    def __missing__(self, record: type) -> Any:
        measure = self._measure
        lines = [f"size = {measure.message}"]
        lines += [line for field in fields_of(record) if (line := _line(f"s.{field.name}", field, measure))]
        name = f"{measure.name}_{record.__name__}"
        self[record] = made = function(name, "s", [*lines, "return size"], self._names)
        return made


class _ItemSizes(dict[type, Any]):
    """Likewise, as an item of a list."""

    def __missing__(self, record: type) -> Any:
        line = f"return {_item(record, _IN_A_FRAME)}"
        self[record] = made = function(f"item_size_of_{record.__name__}", "item", [line], {})
        return made


_SIZES, _CONTENTS, _ITEMS = _Sizes(_IN_A_FRAME, size_of), _Sizes(_CONTENT, content_of), _ItemSizes()


def _line(value: str, field: Field, measure: _Measure) -> str:
    """The statement that adds a field to `size`; empty: it is next to nothing."""
    if field.many:
        return _list_line(value, field, measure)
    if field.types == (bytes,):
        return f"size += len({value})"
    if field.kind is Kind.CLUSTER_STATE:
        return f"size += {value}.size()"
    if field.types != (KVError,) and all(map(is_record, field.types)):
        part = f"size += {measure.name}({value})"
        return f"if {value} is not None: {part}" if field.optional else part
    return ""


def _list_line(value: str, field: Field, measure: _Measure) -> str:
    if field.type in (bytes, str):
        each = f"{measure.item} + len(item)"
    elif is_record(field.type):
        each = _item(field.type, measure)
    else:
        each = str(_number(field, measure))
    return f"size += {each} * len({value})" if each.isdigit() else f"for item in {value}: size += {each}"


def _item(record: type, measure: _Measure) -> str:
    """What an `item` of a list adds, as an expression."""
    fields = fields_of(record)
    lengths = [f"len(item.{part.name})" for part in fields if part.types in ((bytes,), (str,))]
    fixed = sum(_number(part, measure) for part in fields if part.types not in ((bytes,), (str,)))
    return " + ".join([str(fixed + measure.item), *lengths]) if lengths else str(fixed)


def _number(field: Field, measure: _Measure) -> int:
    return measure.numbers.get(field.kind, measure.number)
