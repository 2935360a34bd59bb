"""The form of Knossos and Jepsen: operation maps in EDN.

    [{:process 0, :type :invoke, :f :write, :value 3} {:process 0, :type :ok, :f :write, :value 3}]

Jepsen stores the same maps one on a line, with `:index` and `:time`. Where a history is about several keys
each value is a pair, `[key value]`, as Jepsen's `independent` has it: Knossos itself takes one key at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import edn_format
from edn_format import Keyword

from jepsen.formats.shared import happened, history, operation, operation_maps, with_new_processes
from jepsen.history import NEMESIS, History, Op


def dumps(whole: History) -> str:
    """What the clients may have done, as a vector of operation maps."""
    lines = [_map(op) for op in with_new_processes(happened(whole))]
    return "[" + "\n ".join(lines) + "]\n"


def dumps_lines(whole: History) -> str:
    """The history as Jepsen stores it: with the nemesis, one map on a line."""
    return "".join(_map(op) + "\n" for op in whole)


def loads(text: str, *, independent: bool = False) -> History:
    """Read a vector, a list or lines of operation maps.

    Keywords become text; a keyword in place of a value (`:info :write :timed-out`) is an error. With
    `independent` values are `[key value]`. Raises FormatError.
    """
    return _history(
        [operation(place, fields) for place, fields in enumerate(operation_maps(text))], independent
    )


def loads_maps(maps: Sequence[Any]) -> History:
    """Read operation maps; values are `[key value]` if each invoked one can be. Raises FormatError."""
    ops = [operation(place, fields) for place, fields in enumerate(maps)]
    invoked = [op for op in ops if op.process != NEMESIS and op.type == "invoke"]
    return _history(ops, bool(invoked) and all(map(_has_key, invoked)))


def _has_key(op: Op) -> bool:
    """Whether the value can be a key and a value: `[x 3]`, or `[x [3 4]]` where a cas has two."""
    pair = isinstance(op.value, list) and len(op.value) == 2
    return pair and (op.f != "cas" or isinstance(op.value[1], list))


def _history(ops: list[Op], independent: bool) -> History:
    return history(map(_split, ops) if independent else ops)


def _split(op: Op) -> Op:
    if op.process == NEMESIS or not (isinstance(op.value, list) and len(op.value) == 2):
        return op
    key, value = op.value
    return Op(op.index, op.time, op.process, op.type, op.f, value, str(key), op.error, op.node, op.extra)


def _map(op: Op) -> str:
    value = op.value if op.key is None else [op.key, op.value]
    fields: dict[str, Any] = {
        "process": Keyword(NEMESIS) if op.process == NEMESIS else op.process,
        "type": Keyword(op.type),
        "f": Keyword(op.f),
        "value": value,
        "index": op.index,
        "time": op.time,
    }
    fields |= {name: of for name, of in (("error", op.error), ("node", op.node)) if of is not None}
    fields |= op.extra
    return str(edn_format.dumps({Keyword(name): of for name, of in fields.items()}))
