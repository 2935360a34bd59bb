"""The two forms of Porcupine's test data.

The log of Jepsen's etcd test, of one register, with tabs; a process whose operation ended with `:info` is not
seen again:

    INFO  jepsen.util - 0	:invoke	:write	3
    INFO  jepsen.util - 0	:ok	:write	3
    INFO  jepsen.util - 1	:invoke	:cas	[3 4]
    INFO  jepsen.util - 1	:info	:cas	:timed-out

Its larger logs have a hint for the search behind each value, `:hint 7`, which is skipped.

And the log of a key-value store with get, put and append, in which no value is the empty text, and an
operation whose end nobody knows has no second line:

    {:process 0, :type :invoke, :f :put, :key "x", :value "1"}
    {:process 0, :type :ok, :f :put, :key "x", :value "1"}

Operations that certainly did not happen, and reads nobody heard the end of, are left out of both.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Any

from jepsen.checkers.values import freeze
from jepsen.formats.shared import FormatError, edn, happened, history, operation, with_new_processes
from jepsen.history import History

_LINE = re.compile(r"^INFO\s+jepsen\.util\s+-\s+(\d+)\s+:(\w+)\s+:(\w+)\s+(.*?)(?:\s+:hint\s+\d+)?\s*$")
"""The process, the type, the function and the value of a line."""
_KV = {"read": "get", "get": "get", "write": "put", "put": "put", "append": "append"}


def dumps_log(whole: History) -> str:
    """The history of one register as the log of Jepsen's etcd test.

    Where a value is not a number from 0 on, the values are numbered. Raises FormatError.
    """
    ops = list(with_new_processes(happened(whole)))
    values = [v for op in ops for v in (op.value if op.f == "cas" else [op.value]) if v is not None]
    numbers: dict[Hashable, int] = {}
    if not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values):
        for value in values:
            numbers.setdefault(freeze(value), len(numbers))

    def number(value: Any) -> str:
        return "nil" if value is None else str(numbers[freeze(value)] if numbers else value)

    lines = []
    for op in ops:
        if op.f not in ("read", "write", "cas") or isinstance(op.value, list) != (op.f == "cas"):
            raise FormatError(f"operation {op.index}: this log has no {op.f} of {op.value!r}")
        if op.f == "write" and op.value is None:
            raise FormatError(f"operation {op.index}: this log has no write of nil")
        value = f"[{' '.join(map(number, op.value))}]" if op.f == "cas" else number(op.value)
        value = ":timed-out" if op.type == "info" else value
        lines.append(f"INFO  jepsen.util - {op.process}\t:{op.type}\t:{op.f}\t{value}\n")
    return "".join(lines)


def loads_log(text: str) -> History:
    """Read such a log; lines of other kinds are skipped. Raises FormatError."""
    lines = [match for match in map(_LINE.match, text.splitlines()) if match is not None]
    lines = [line for line in lines if line[2] in ("invoke", "ok", "fail", "info")]
    values = edn("\n".join(line[4] for line in lines))
    if len(values) != len(lines):
        raise FormatError(f"{len(lines)} lines have {len(values)} values")
    ops = []
    for place, (line, value) in enumerate(zip(lines, values, strict=True)):
        process, type, f, text = line.groups()
        if type == "fail" and text == ":timed-out":
            type = "info"  # a read, which says nothing either way
        ops.append(operation(place, {"process": int(process), "type": type, "f": f, "value": value}))
    return history(ops)


def dumps_kv(whole: History) -> str:
    """The history of any number of keys as the log of a key-value store. Raises FormatError."""
    lines = []
    for op in with_new_processes(happened(whole)):
        f = _KV.get(op.f)
        if f is None or isinstance(op.value, (list, dict)) or "" in (op.value, op.key):
            raise FormatError(f"operation {op.index}: this log has no {op.f} of {op.value!r}")
        if op.type == "info":
            continue
        value = "nil" if f == "get" and op.type == "invoke" else f'"{_text(op.value)}"'
        key = _text(op.key)
        lines.append(f'{{:process {op.process}, :type :{op.type}, :f :{f}, :key "{key}", :value {value}}}\n')
    return "".join(lines)


def _text(value: Any) -> str:
    text = "" if value is None else str(value)
    if re.search(r'["\\\n\r]', text):
        raise FormatError(f"this log has no way to quote {text!r}")
    return text


def loads_kv(text: str) -> History:
    """Read such a log. No value is the empty text. Raises FormatError."""
    return loads_kv_maps(edn(text))


def loads_kv_maps(maps: Sequence[Any]) -> History:
    """Read the operation maps of such a log. Raises FormatError."""
    return history(operation(place, fields) for place, fields in enumerate(maps))


def is_log(text: str) -> bool:
    """Whether a text has a line of the log of Jepsen's etcd test."""
    return any(map(_LINE.match, text.splitlines()))
