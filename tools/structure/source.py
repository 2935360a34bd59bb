"""The modules of a package, parsed."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Module:
    """A file by its dotted name: `kvstore.ring` for kvstore/ring/__init__.py."""

    name: str
    path: Path
    lines: int
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        """Whether other modules lie below it."""
        return self.path.name == "__init__.py"


def read_package(directory: Path, without: tuple[str, ...] = ()) -> dict[str, Module]:
    """All modules of the package in a directory, by dotted name; `without` names generated subpackages."""
    root = directory.parent
    found = {}
    for path in sorted(directory.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not any(name == other or name.startswith(f"{other}.") for other in without):
            text = path.read_text()
            found[name] = Module(name, path, len(text.splitlines()), ast.parse(text))
    return found
