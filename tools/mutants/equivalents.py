"""Defects that change nothing anyone can see, each with the reason: they count neither way."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from tools.mutants.changes import Change

LIST = Path(__file__).with_name("equivalents.toml")


@dataclass(frozen=True, slots=True)
class Equivalent:
    """A line of a file before and after the defect, without its indentation."""

    path: str
    before: str
    after: str


def equivalents(root: Path) -> dict[Equivalent, str]:
    """The list, with the reasons; raises ValueError if a line is in its file no more."""
    found: dict[Equivalent, str] = {}
    for path, entries in tomllib.loads(LIST.read_text()).items():
        lines = {line.strip() for line in (root / path).read_text().splitlines()}
        for entry in entries:
            if entry["before"] not in lines:
                raise ValueError(f"{LIST.name}: {path} has no line {entry['before']!r}")
            for after in entry["after"] if isinstance(entry["after"], list) else [entry["after"]]:
                found[Equivalent(path, entry["before"], after)] = entry["reason"]
    return found


def as_equivalent(change: Change, source: bytes) -> Equivalent:
    """How a defect would be in the list."""
    start = source.rfind(b"\n", 0, change.start) + 1
    end = source.find(b"\n", change.end)
    end = len(source) if end < 0 else end
    before = source[start:end]
    after = before[: change.start - start] + change.text + before[change.end - start :]
    return Equivalent(change.path, _first(before), _first(after))


def _first(lines: bytes) -> str:
    return " ".join(line.strip() for line in lines.decode().splitlines())
