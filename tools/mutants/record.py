"""The results of a run in a file, so that a run that was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tools.mutants.changes import Change
from tools.mutants.trial import Outcome, Result


class Record:
    """One line of JSON for each result; those of other sources or tests, by their digest, are not taken."""

    def __init__(self, path: Path, digest: str) -> None:
        self._path = path
        self._digest = digest
        self.results: dict[Change, Result] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        for line in path.read_text().splitlines() if path.exists() else []:
            entry = json.loads(line)
            if entry["digest"] == self._digest:
                self.results[_change(entry)] = _result(entry)

    def add(self, change: Change, result: Result) -> None:
        """Remember a result."""
        self.results[change] = result
        entry = {
            "path": change.path,
            "start": change.start,
            "end": change.end,
            "text": change.text.decode(),
            "outcome": result.outcome,
            "by": result.by,
            "seconds": round(result.seconds, 1),
            "digest": self._digest,
        }
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def _change(entry: dict[str, object]) -> Change:
    return Change(str(entry["path"]), _int(entry["start"]), _int(entry["end"]), str(entry["text"]).encode())


def _result(entry: dict[str, object]) -> Result:
    return Result(Outcome(str(entry["outcome"])), str(entry["by"]), float(str(entry["seconds"])))


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def digest_of(root: Path) -> str:
    """Of all sources and tests, and of what plants defects."""
    digest = hashlib.sha256()
    for top in ("kvstore", "tests", "jepsen", "tools"):
        for path in sorted((root / top).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]
