"""What the formats have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import edn_format
import msgspec
from edn_format import Keyword

from jepsen.checkers.values import READS
from jepsen.history import NEMESIS, History, HistoryError, Op, Process

_OP_TAG = "jepsen.history.Op"
edn_format.add_tag(_OP_TAG, lambda value: value)  # as Jepsen 0.3 prints operations


class FormatError(HistoryError):
    """A text is not of the form, or the form cannot say what a history says; the message says why."""


def edn(text: str) -> list[Any]:
    """All values of an EDN text, as JSON values: keywords and symbols as text, sets as lists.

    Raises FormatError.
    """
    try:
        return [plain(value) for value in edn_format.loads_all(text)]
    except (ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        # The library has an error of its own, a ValueError, but 0/0 and [{[] 1}] show others.
        raise FormatError(f"not EDN: {error}") from error


def operation_maps(text: str) -> list[Any]:
    """The operation maps of an EDN text: a vector, a list or lines of them. Raises FormatError."""
    maps = edn(text)
    return maps[0] if len(maps) == 1 and isinstance(maps[0], list) else maps


class Word(str):
    """What was a keyword or a symbol in EDN, and is text here."""

    __slots__ = ()


def plain(value: Any) -> Any:
    """A value of edn_format as a JSON value, in which keywords are of the class Word."""
    if isinstance(value, Keyword):
        return Word(value.name)
    if isinstance(value, edn_format.Symbol):
        return Word(str(value))
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    if isinstance(value, frozenset):
        return sorted((plain(item) for item in value), key=repr)
    return value


def operation(place: int, fields: dict[str, Any], f: str = "") -> Op:
    """The Op of an operation map, which is number `place` in its text; `f` where it has none.

    Raises FormatError.
    """
    try:
        type = str(fields["type"]).lstrip(":")
        value = fields.get("value")
        error = fields.get("error")
        if isinstance(value, Word):  # as in [:info :write :timed-out]
            value, error = None, error or value
        process = fields.get("process", 0)
        if process != NEMESIS and not isinstance(process, int):
            raise FormatError(f"operation {place}: the process {process!r} is no number")
        known = {"index", "time", "process", "type", "f", "value", "error", "node", "key"}
        return msgspec.convert(
            {
                "index": fields.get("index", place),
                "time": fields.get("time", place),
                "process": process,
                "type": type,
                "f": str(fields.get("f") or f),
                "value": value,
                "key": None if fields.get("key") is None else str(fields["key"]),
                "error": None if error is None else str(error),
                "node": None if fields.get("node") is None else str(fields["node"]),
                "extra": {name: item for name, item in fields.items() if name not in known},
            },
            Op,
        )
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise FormatError(f"operation {place} is none: {error!r}: {fields}") from error


def filled(ops: Iterable[Op]) -> Iterator[Op]:
    """The same operations; completions without a value, except those that are ok, have their invocation's."""
    invoked: dict[Process, Op] = {}
    for op in ops:
        if op.process != NEMESIS and op.type == "invoke":
            invoked[op.process] = op
        elif op.process in invoked and op.value is None and op.type != "ok":
            op = msgspec.structs.replace(op, value=invoked[op.process].value)  # noqa: PLW2901
        yield op


def history(ops: Iterable[Op]) -> History:
    """A history of what was read.

    The order is that of the indexes where all differ, else that of the text, and then the index of an
    operation is its place there. Times that fall, which histories of several hosts have, count as the latest
    one before. Raises FormatError.
    """
    whole = list(ops)
    if len({op.index for op in whole}) == len(whole):
        whole.sort(key=lambda op: op.index)
    else:
        whole = [msgspec.structs.replace(op, index=place) for place, op in enumerate(whole)]
    times = accumulate((op.time for op in whole), max, initial=0)
    next(times)
    in_order = (msgspec.structs.replace(op, time=time) for op, time in zip(whole, times, strict=True))
    try:
        return History(filled(in_order))
    except HistoryError as error:
        raise FormatError(str(error)) from error


def only_key(whole: History, key: str | None) -> History:
    """The operations of the clients on one key, which is left out."""
    ops = [op for op in whole if op.process != NEMESIS and op.key == key]
    return History(msgspec.structs.replace(op, key=None) for op in ops)


def happened(whole: History) -> Iterator[Op]:
    """The clients' operations that say something: no `fail`, and no read nobody heard the end of."""
    silent = set()
    for operation in whole.operations:
        if operation.type == "fail" or (operation.type == "info" and operation.invocation.f in READS):
            silent |= {op.index for op in operation if op is not None}
    return (op for op in whole if op.process != NEMESIS and op.index not in silent)


def with_new_processes(ops: Iterable[Op]) -> Iterator[Op]:
    """The same operations, in which a process is another one after an `info`.

    So other checkers want it: to them an operation of unknown outcome is under way for ever, and a process
    does one thing at a time.
    """
    all_ = list(ops)
    new = 1 + max((op.process for op in all_ if isinstance(op.process, int)), default=0)
    names: dict[Process, int] = {}
    for op in all_:
        if op.process == NEMESIS:
            yield op
            continue
        yield msgspec.structs.replace(op, process=names.get(op.process, op.process))
        if op.type == "info":
            names[op.process], new = new, new + 1
