"""Histories in the forms that other checkers read, so that they can check ours, and ours theirs.

| module | form | read by |
|---|---|---|
| `knossos` | EDN: a vector, a list, or lines, of operation maps | Knossos, Jepsen itself (`history.edn`) |
| `elle` | EDN lines of transactions: rw-register, list-append | Elle, elle-cli |
| `porcupine` | the log of Jepsen's etcd test, and the log of a key-value store | Porcupine's tests |

`export(history, directory)` writes all that can say what the history says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from jepsen.formats import elle, knossos, porcupine
from jepsen.formats.shared import FormatError, only_key
from jepsen.history import History

__all__ = ["FormatError", "export"]


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
