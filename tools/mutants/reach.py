"""Which tests can notice a defect: those that run its line, the quickest first."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path

from coverage import CoverageData

from tools.mutants.changes import Change
from tools.mutants.tracing import SECONDS, SEEDS, TRACE

_COMPOUND = (ast.If, ast.While, ast.For, ast.With, ast.Try, ast.Match, ast.AsyncFor, ast.AsyncWith)


@dataclass(frozen=True, slots=True)
class Reach:
    """The tests of a suite as they ran without a defect: seconds of each, names by file and line.

    None stands for all: of what a module does when it is imported.
    """

    seconds: dict[str, float]
    lines: dict[str, dict[int, list[str]]]

    @classmethod
    def load(cls, directory: Path) -> Reach:
        """What was traced in the directory of a copy."""
        data = CoverageData(str(directory / TRACE))
        data.read()
        lines = {
            str(Path(file).relative_to(directory)): data.contexts_by_lineno(file)
            for file in data.measured_files()
        }
        return cls(json.loads((directory / SECONDS).read_text()), lines)

    @classmethod
    def read(cls, file: Path) -> Reach:
        """What `write` has written."""
        seconds, lines = json.loads(file.read_text())
        return cls(
            seconds, {path: {int(line): names for line, names in of.items()} for path, of in lines.items()}
        )

    def write(self, file: Path) -> None:
        """Keep it for the next run of the same sources and tests."""
        file.write_text(json.dumps([self.seconds, self.lines]))

    def of(self, change: Change, source: bytes) -> tuple[list[str], bool]:
        """The tests that run what is changed, in the order of their seconds, and whether the seeds do."""
        lines = _lines(change, source)
        known = self.lines.get(change.path, {})
        names = set(self.seconds) | {SEEDS}
        if lines is not None:
            names &= {name for line in lines for name in known.get(line, ())}
        tests = sorted(names - {SEEDS}, key=lambda name: (self.seconds[name], name))
        return tests, SEEDS in names


def _lines(change: Change, source: bytes) -> set[int] | None:
    """The lines of the statement in a function that holds a change; None if nobody knows who needs it.

    Of a private name of the module they are those of the statements that use it.
    """
    tree = ast.parse(source)
    line = change.line(source)
    found = _statement(tree, line)
    if found is None:
        for node in tree.body:
            if isinstance(node, ast.Assign) and node.lineno <= line <= (node.end_lineno or 0):
                (target,) = node.targets
                if isinstance(target, ast.Name) and target.id.startswith("_"):
                    return _users(tree, target.id)
    return found


def _statement(tree: ast.Module, line: int) -> set[int] | None:
    found: set[int] | None = None
    inside = False
    node: ast.AST = tree
    while True:
        below = (child for child in ast.walk(node) if child is not node and isinstance(child, ast.stmt))
        held = [child for child in below if child.lineno <= line <= (child.end_lineno or 0)]
        if not held:
            return found
        node = held[0]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = inside or line >= node.body[0].lineno
        elif inside:
            body = getattr(node, "body", None) if isinstance(node, _COMPOUND) else None
            end = body[0].lineno - 1 if body else node.end_lineno
            found = set(range(node.lineno, max(end or 0, node.lineno) + 1))


def _users(tree: ast.Module, name: str) -> set[int] | None:
    """None if it is used when the module is imported."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
            used = _statement(tree, node.lineno)
            if used is None:
                return None
            lines |= used
    return lines
