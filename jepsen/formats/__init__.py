"""Histories in the forms that other checkers read, so that they can check ours, and ours theirs.

| module | form | read by |
|---|---|---|
| `knossos` | EDN: a vector, a list, or lines, of operation maps | Knossos, Jepsen itself (`history.edn`) |
| `elle` | EDN lines of transactions: rw-register, list-append | Elle, elle-cli |
| `porcupine` | the log of Jepsen's etcd test, and the log of a key-value store | Porcupine's tests |

`export(history, directory)` writes all that can say what the history says; `read(path)` reads any of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from jepsen.formats import elle, knossos, porcupine
from jepsen.formats.shared import FormatError, only_key, operation_maps
from jepsen.history import NEMESIS, History

__all__ = ["Form", "FormatError", "export", "read"]

Form = Literal["own", "knossos", "elle", "log", "kv"]
"""`own` is the one of jepsen.history, `log` and `kv` are Porcupine's."""


def read(path: Path) -> tuple[History, Form]:
    """Read a history in whichever form it is. Raises HistoryError, OSError.

    Of EDN maps those with `:key` are Porcupine's, those whose values are lists of micro-operations Elle's.
    """
    content = path.read_bytes()
    if re.match(rb"\s*(\{\s*\"|$)", content):
        return History.read(path), "own"
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: {error}") from error
    if porcupine.is_log(text):
        return porcupine.loads_log(text), "log"
    maps = operation_maps(text)
    if not all(isinstance(fields, dict) for fields in maps):
        raise FormatError(f"{path}: neither JSON lines nor operation maps in EDN")
    clients = [fields for fields in maps if fields.get("process") != NEMESIS]
    if any(map(elle.is_transaction, clients)):
        return elle.loads_maps(maps), "elle"
    if any("key" in fields for fields in clients):
        return porcupine.loads_kv_maps(maps), "kv"
    return knossos.loads_maps(maps), "knossos"


def export(history: History, directory: Path) -> dict[str, str]:
    """Write the history in every form into `directory`, which is made; for each file what it is, or why not.

    `history.edn` has everything, as a Jepsen run stores it. Knossos and Porcupine's log know one object, so
    each key has files of its own. Where a form cannot say what the history says nothing is written in it,
    and the answer is the reason. Raises OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written: dict[str, str] = {}

    def put(name: str, make: Callable[[History], str], of: History) -> None:
        try:
            text = make(of)
        except FormatError as error:
            written[name] = f"not written: {error}"
        else:
            (directory / name).write_text(text, encoding="utf-8")
            written[name] = "written"

    put("history.edn", knossos.dumps_lines, history)
    put("elle.edn", elle.dumps, history)
    put("porcupine-kv.txt", porcupine.dumps_kv, history)
    for number, key in enumerate(history.by_key):
        of_key = only_key(history, key)
        name = f"{number}-{re.sub(r'[^A-Za-z0-9_-]', '_', str(key))}"
        put(f"knossos-{name}.edn", knossos.dumps, of_key)
        put(f"porcupine-{name}.log", porcupine.dumps_log, of_key)
    return written
