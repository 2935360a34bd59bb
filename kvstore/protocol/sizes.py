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
        terms = [term for field in fields_of(record) if (term := _term(f"s.{field.name}", field, measure))]
        total = " + ".join([str(measure.message), *terms])
        name = f"{measure.name}_{record.__name__}"
        self[record] = made = function(name, "s", [f"return {total}"], self._names)
        return made


_SIZES, _CONTENTS = _Sizes(_IN_A_FRAME, size_of), _Sizes(_CONTENT, content_of)


def _term(value: str, field: Field, measure: _Measure) -> str:
    """What a field adds, as an expression; empty: next to nothing."""
    if field.many:
        return _list_term(value, field, measure)
    if field.types == (bytes,):
        return f"len({value})"
    if field.types != (KVError,) and all(map(is_record, field.types)):
        part = f"{measure.name}({value})"
        return f"({part} if {value} is not None else 0)" if field.optional else part
    return ""


def _list_term(value: str, field: Field, measure: _Measure) -> str:
    if field.type in (bytes, str):
        return f"sum([{measure.item} + len(item) for item in {value}])"
    if not is_record(field.type):
        return f"{_number(field, measure)} * len({value})"
    fields = fields_of(field.type)
    lengths = [f"len(item.{part.name})" for part in fields if part.types in ((bytes,), (str,))]
    fixed = sum(_number(part, measure) for part in fields if part.types not in ((bytes,), (str,)))
    if not lengths:
        return f"{fixed} * len({value})"
    return f"sum([{fixed + measure.item} + {' + '.join(lengths)} for item in {value}])"


def _number(field: Field, measure: _Measure) -> int:
    return measure.numbers.get(field.kind, measure.number)
