"""Histories: what was asked of the database, what it answered, and when.

A history is a list of `Op`, in the order in which they happened, with Jepsen's fields. Each process is
single-threaded: it invokes an operation (`invoke`) and later completes it:

* `ok`: it happened;
* `fail`: it certainly did not happen, and never will (the client's *not applied*);
* `info`: nobody knows (the client's *outcome unknown*). It may take effect at any time after its
  invocation, so it stays concurrent with everything after it. A process may go on after an `info`.

An invocation without a completion counts as `info`.

The process "nemesis" is the one that makes faults. Its operations come in pairs too, the order and what
became of it, and as in Jepsen both are of type `info`; a fault that could not be made has an `error` in its
second. Several may be under way, each with another `f`. A fault that lasts is a `start-NAME` and, later, a
`stop-NAME`; the time between is a `Period` NAME. The value of a `start-partition` and of all that cut links
is the list of the sides, each a list of nodes: `[["n1"], ["n2", "n3"]]`. Any other `f` is a fault of a
moment (`flip-bits`, `wipe`).

On disk a history is JSON lines, one Op each. Values are JSON values: None, bool, int, float, str, list, dict
with str keys. Bytes go in as text (contexts as hex, in `extra["context"]`).

    with HistoryWriter(Path("history.jsonl")) as writer:
        op = writer.invoke(0, "write", 3, key="x", node="n1")
        writer.complete(op, "ok")
        writer.complete(writer.nemesis("start-partition", [["n1"], ["n2", "n3"]]), "info")
    history = History.read(Path("history.jsonl"))
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, NamedTuple, Self

import msgspec

NEMESIS: Literal["nemesis"] = "nemesis"
"""The process that makes faults."""

Type = Literal["invoke", "ok", "fail", "info"]
Process = int | Literal["nemesis"]


class HistoryError(Exception):
    """What was read is no history; the message says where and why."""


class Op(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event of a history: the invocation or the completion of an operation.

    `time` is nanoseconds since the run began, by a monotonic clock. `key` is the independent key the
    operation is about, None if it is about all or the only one. `node` is the node that was asked. `extra`
    is whatever else is known of it, for checkers that ask for it: `context` (hex), `quorum`, `siblings`.
    """

    index: int
    time: int
    process: Process
    type: Type
    f: str
    value: Any = None
    key: str | None = None
    error: str | None = None
    node: str | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)


class Operation(NamedTuple):
    """An invocation and its completion, None where there is none."""

    invocation: Op
    completion: Op | None

    @property
    def type(self) -> Literal["ok", "fail", "info"]:
        """How it ended; `info` if it never did."""
        if self.completion is None or self.completion.type == "invoke":
            return "info"
        return self.completion.type


class Period(NamedTuple):
    """The time in which a fault lasted, in ns: from the order to make it to the end of undoing it."""

    name: str
    start: int
    stop: int
    value: Any


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Op)


class History(Sequence[Op]):
    """An immutable list of Op, whose invocations and completions have been paired.

    Raises HistoryError for indexes that do not rise, times that fall, a completion without an
    invocation, and an invocation by a process that is still waiting.
    """

    def __init__(self, ops: Iterable[Op]) -> None:
        self.ops: tuple[Op, ...] = tuple(ops)
        self._pairs = _pair(self.ops)

    @classmethod
    def read(cls, path: Path) -> History:
        """Read JSON lines. Raises HistoryError, OSError."""
        ops = []
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    ops.append(_decoder.decode(line))
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise HistoryError(f"{path}:{number}: not an operation: {error}") from error
        return cls(ops)

    def write(self, path: Path) -> None:
        """Write JSON lines. Raises OSError."""
        with path.open("wb") as file:
            file.writelines(_encoder.encode(op) + b"\n" for op in self.ops)

    def __len__(self) -> int:
        return len(self.ops)

    def __getitem__(self, place: Any) -> Any:
        return self.ops[place]

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self.ops == other.ops

    def __hash__(self) -> int:
        return hash(len(self.ops))

    @property
    def duration(self) -> int:
        """Nanoseconds from the start of the run to the last operation."""
        return self.ops[-1].time if self.ops else 0

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        """The clients' operations, in order of their invocations."""
        return tuple(pair for pair in self._pairs if pair.invocation.process != NEMESIS)

    @cached_property
    def faults(self) -> tuple[Operation, ...]:
        """The nemesis' operations, in order."""
        return tuple(pair for pair in self._pairs if pair.invocation.process == NEMESIS)

    @cached_property
    def periods(self) -> tuple[Period, ...]:
        """When which fault lasted, in order of the starts. One that was never stopped lasts to the end."""
        open_: dict[str, list[Period]] = {}
        periods = []
        for invocation, completion in self.faults:
            verb, _, name = invocation.f.partition("-")
            if verb == "start" and name and not (completion and completion.error):
                value = completion.value if completion and completion.value is not None else invocation.value
                open_.setdefault(name, []).append(Period(name, invocation.time, self.duration, value))
            elif verb == "stop" and completion and not completion.error:
                periods += [p._replace(stop=completion.time) for p in open_.pop(name, [])]
        periods += [period for rest in open_.values() for period in rest]
        return tuple(sorted(periods, key=lambda period: (period.start, period.name)))

    @cached_property
    def by_key(self) -> dict[str | None, list[Operation]]:
        """The clients' operations of each independent key."""
        keys: dict[str | None, list[Operation]] = {}
        for operation in self.operations:
            keys.setdefault(operation.invocation.key, []).append(operation)
        return keys


def _pair(ops: Sequence[Op]) -> list[Operation]:
    pairs: list[Operation] = []
    waiting: dict[Process | tuple[Process, str], int] = {}
    index, now = -1, 0
    for op in ops:
        if op.index <= index or op.time < now:
            raise HistoryError(f"operation {op.index} at {op.time} ns comes after {index} at {now} ns")
        index, now = op.index, op.time
        thread = (op.process, op.f) if op.process == NEMESIS else op.process
        if op.type == "invoke" or (op.process == NEMESIS and thread not in waiting):
            if thread in waiting:
                raise HistoryError(f"operation {index}: process {op.process} has not completed its last one")
            waiting[thread] = len(pairs)
            pairs.append(Operation(op, None))
            continue
        place = waiting.pop(thread, None)
        if place is None:
            raise HistoryError(f"operation {index}: process {op.process} completes what it never invoked")
        if pairs[place].invocation.f != op.f:
            raise HistoryError(
                f"operation {index}: {op.f} by process {op.process} ends its {pairs[place].invocation.f}"
            )
        pairs[place] = Operation(pairs[place].invocation, op)
    return pairs


class HistoryWriter:
    """Takes the operations of a run as they happen, numbers and times them, and appends each to a file.

    All methods may be called from any thread, and from coroutines: each is one short write to the page
    cache. A run that dies leaves a file that reads as a history.
    """

    def __init__(self, path: Path, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Create `path`; time 0 is now. Raises OSError, also if `path` exists."""
        self._file: BinaryIO = path.open("xb", buffering=0)
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self._ops: list[Op] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Nothing can be added afterwards."""
        self._file.close()

    def now(self) -> int:
        """Nanoseconds since the run began."""
        return self._clock() - self._began

    def invoke(
        self,
        process: int,
        f: str,
        value: Any = None,
        *,
        key: str | None = None,
        node: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Op:
        """Add an invocation; call it just before the request leaves."""
        return self._append(process, "invoke", f, value, key, None, node, extra)

    def complete(
        self,
        invocation: Op,
        type: Literal["ok", "fail", "info"],
        value: Any = None,
        *,
        error: str | None = None,
        node: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Op:
        """Add the completion of `invocation`; call it just after the reply came.

        Without `value` and `node` it has those of its invocation. `extra` is its own.
        """
        value = invocation.value if value is None else value
        node = invocation.node if node is None else node
        return self._append(invocation.process, type, invocation.f, value, invocation.key, error, node, extra)

    def nemesis(self, f: str, value: Any = None, *, extra: dict[str, Any] | None = None) -> Op:
        """Add the order for a fault; `complete` it with "info", and an `error` if it could not be made."""
        return self._append(NEMESIS, "info", f, value, None, None, None, extra)

    def history(self) -> History:
        """All that was added up to now."""
        with self._lock:
            ops = tuple(self._ops)
        return History(ops)

    def _append(
        self,
        process: Process,
        type: Type,
        f: str,
        value: Any,
        key: str | None,
        error: str | None,
        node: str | None,
        extra: dict[str, Any] | None,
    ) -> Op:
        with self._lock:
            op = Op(len(self._ops), self.now(), process, type, f, value, key, error, node, extra or {})
            self._file.write(_encoder.encode(op) + b"\n")
            self._ops.append(op)
        return op
