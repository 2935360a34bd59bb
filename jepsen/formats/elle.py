"""The form of Elle: each operation is a transaction, a list of micro-operations.

    {:index 0 :time 7 :process 0 :type :invoke :f :txn :value [[:w "x" 1]]}

`write` is `[:w key value]`, `append` is `[:append key value]`, `read` is `[:r key value]`: rw-register and
list-append. Elle infers the order of versions from what it reads, so nothing else can be said in it: no
siblings, no sets (they have no order), no deletes (nil is the initial value), no value written twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import edn_format
import msgspec
from edn_format import Keyword

from jepsen.checkers.values import freeze
from jepsen.formats.shared import FormatError, filled, history, operation, operation_maps, with_new_processes
from jepsen.history import NEMESIS, History, Op

_MICRO = {"write": "w", "read": "r", "append": "append"}
_NAMES = {"w": "write", "r": "read", "append": "append"}


def dumps(whole: History) -> str:
    """The history as rw-register or list-append transactions. Raises FormatError where they cannot say it."""
    appends = any(op.f == "append" for op in whole)
    written = set()
    lines = []
    for op in with_new_processes(whole):
        if op.process == NEMESIS:
            continue
        if op.f not in _MICRO or (appends and op.f == "write"):
            raise FormatError(f"operation {op.index}: Elle has no {op.f} here")
        if op.f == "read" and op.type == "ok" and isinstance(op.value, list) != appends:
            raise FormatError(f"operation {op.index}: a read of {'no list' if appends else 'siblings'}")
        if op.f != "read" and op.type == "invoke":
            if (op.key, freeze(op.value)) in written:
                raise FormatError(f"operation {op.index}: {op.value!r} is written twice")
            written.add((op.key, freeze(op.value)))
        lines.append(_line(op))
    return "\n".join(lines) + "\n"


def _line(op: Op) -> str:
    value = None if op.f == "read" and op.type != "ok" else op.value
    fields = {
        "index": op.index,
        "time": op.time,
        "process": op.process,
        "type": Keyword(op.type),
        "f": Keyword("txn"),
        "value": [[Keyword(_MICRO[op.f]), op.key, value]],
    }
    return str(edn_format.dumps({Keyword(name): of for name, of in fields.items()}))


def loads(text: str) -> History:
    """Read transactions. Where each has one micro-operation they become those operations, on their keys.

    Otherwise all stay what they are, with `f` "txn" and the list of their micro-operations as the value.
    Raises FormatError.
    """
    return loads_maps(operation_maps(text))


def loads_maps(maps: Sequence[Any]) -> History:
    """Read transactions from operation maps. Raises FormatError."""
    ops = list(filled(operation(place, fields, "txn") for place, fields in enumerate(maps)))
    if all(op.process == NEMESIS or (isinstance(op.value, list) and len(op.value) == 1) for op in ops):
        ops = [op if op.process == NEMESIS else _single(op) for op in ops]
    return history(ops)


def is_transaction(fields: Mapping[str, Any]) -> bool:
    """Whether an operation map is of this form; paper-like examples of it leave out `:f`."""
    value = fields.get("value")
    micro = isinstance(value, list) and all(isinstance(step, list) and step for step in value)
    return fields.get("f") == "txn" or ("f" not in fields and micro)


def _single(op: Op) -> Op:
    step = op.value[0]
    if not isinstance(step, list) or len(step) not in (2, 3) or str(step[0]) not in _NAMES:
        raise FormatError(f"operation {op.index} has the unknown micro-operation {step}")
    f, key, *value = step
    return msgspec.structs.replace(op, f=_NAMES[str(f)], key=str(key), value=value[0] if value else None)
