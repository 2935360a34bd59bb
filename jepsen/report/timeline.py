"""The per-process timeline of a report, as SVG: the operations around each offending one.

A row is a process. From left to right is the order of events, not time, so that operations of microseconds
and of seconds can be seen side by side; the times are above. An operation whose outcome is unknown goes on
to the right edge.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from jepsen.checkers.values import shown
from jepsen.history import History, Operation, Process

MOST_WINDOWS = 10
AROUND = 20
"""Operations shown before an offending one, and after it."""

_STEP = 34
_ROW = 26
_SHORT = {"read": "r", "write": "w", "add": "+", "append": "+", "delete": "del", "txn": ""}
"""What is written into the bars, which are narrow."""

_LEFT = 70
_TOP = 34


class Bar(NamedTuple):
    """One operation in a window, in pixels."""

    x: int
    y: int
    width: int
    type: str
    label: str
    title: str
    offends: bool


class Window(NamedTuple):
    """A part of the timeline: bars, and where which process and time is."""

    caption: str
    width: int
    height: int
    bars: list[Bar]
    rows: list[tuple[int, str]]
    ticks: list[tuple[int, str]]


class Timeline(NamedTuple):
    """The windows, and what is not in them."""

    note: str
    names: str
    windows: list[Window]


def windows(history: History, offences: Mapping[int, str]) -> Timeline:
    """The operations around offending ones (`offences`: index of an Op, and why), on the same key.

    Without offences the first operations of the run.
    """
    operations = history.operations
    if not operations:
        return Timeline("There was no operation.", "", [])
    names = ", ".join(
        f"{_SHORT[f]} is {f}" for f in sorted({o.invocation.f for o in operations} & _SHORT.keys())
    )
    if not offences:
        some = operations[: 2 * AROUND]
        note = f"No operation offends. These are the first {len(some):,} of {len(operations):,}."
        return Timeline(note, names, [_window("The beginning of the run", some, offences)])
    found: list[Window] = []
    covered: set[int] = set()
    for index in sorted(offences):
        if index not in covered and len(found) < MOST_WINDOWS:
            window, inside = _around(history, index, offences)
            covered |= inside
            found.append(window)
    left = sum(index not in covered for index in offences)
    note = (
        f"Of {len(operations):,} operations those on the same key around the offending ones: up to {AROUND} "
        f"before and after each. {len(offences) - left:,} of {len(offences):,} offending ones are shown."
    )
    return Timeline(note, names, found)


def _around(history: History, index: int, offences: Mapping[int, str]) -> tuple[Window, set[int]]:
    op = history[bisect_left(history.ops, index, key=attrgetter("index"))]
    same = history.by_key.get(op.key, [])
    begun = bisect_left(same, index + 1, key=attrgetter("invocation.index")) - 1
    own = next(
        (at for at in range(begun, -1, -1) if same[at].invocation.process == op.process), max(begun, 0)
    )
    near = [*same[max(0, begun - AROUND) : begun + AROUND]]
    if same and same[own] not in near:
        near.insert(0, same[own])
    key = "" if op.key is None else f"{op.key}: "
    inside = {o.index for operation in near for o in operation if o is not None}
    return _window(f"{key}{offences[index]}", near, offences), inside | {index}


def _window(caption: str, operations: Sequence[Operation], offences: Mapping[int, str]) -> Window:
    ended = [o.completion for o in operations if o.completion is not None and o.type != "info"]
    events = sorted([*(o.invocation for o in operations), *ended], key=attrgetter("index"))
    place = {op.index: _LEFT + at * _STEP for at, op in enumerate(events)}
    right = _LEFT + len(events) * _STEP
    processes = sorted({o.invocation.process for o in operations if isinstance(o.invocation.process, int)})
    row: dict[Process, int] = {process: _TOP + at * _ROW for at, process in enumerate(processes)}
    bars = []
    for operation in operations:
        invocation, completion = operation
        x = place[invocation.index]
        end = right
        if completion is not None and completion.index in place:
            end = place[completion.index] + _STEP * 3 // 4
        whys = [offences[op.index] for op in operation if op is not None and op.index in offences]
        label = _fitting(_label(operation, short=True), (end - x - 6) // 6)
        y = row[invocation.process]
        bars.append(Bar(x, y, end - x, operation.type, label, _title(operation, whys), bool(whys)))
    rows = [(y, str(process)) for process, y in row.items()]
    ticks = [(place[op.index], f"{op.time / 1e9:.3f} s") for op in events[::8]]
    return Window(caption, right + 20, _TOP + len(row) * _ROW + 8, bars, rows, ticks)


def _fitting(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _value(operation: Operation) -> Any:
    invocation, completion = operation
    return completion.value if completion is not None and completion.type == "ok" else invocation.value


def _label(operation: Operation, *, short: bool = False) -> str:
    value = _value(operation)
    f = operation.invocation.f
    nothing = "-" if short else "nothing"
    text = nothing if value is None else shown(value)
    name = _SHORT.get(f, f) if short else f
    return name if value is None and operation.type != "ok" else f"{name} {text}"


def _title(operation: Operation, whys: list[str]) -> str:
    invocation, completion = operation
    end = (
        "never completed"
        if completion is None
        else f"{completion.type} {completion.index} at {completion.time / 1e9:.6f} s"
    )
    lines = [
        _label(operation),
        f"invoke {invocation.index} at {invocation.time / 1e9:.6f} s",
        end,
        f"process {invocation.process}, node {invocation.node or 'not told'}",
        *([completion.error] if completion is not None and completion.error else []),
        *whys,
    ]
    return "\n".join(lines)
