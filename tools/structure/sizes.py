"""Lines of files and of functions, as a distribution."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from tools.structure.source import Module


@dataclass(frozen=True, slots=True)
class Sizes:
    """Lines at the middle, below which nine of ten are, and at the most; with the name of the longest."""

    count: int
    median: float
    p90: int
    longest: int
    where: str


def file_sizes(modules: Iterable[Module]) -> Sizes:
    """Of whole files, empty ones included."""
    return _sizes([(module.lines, module.name) for module in modules])


def function_sizes(modules: Iterable[Module]) -> Sizes:
    """From `def` to the last line; methods and functions inside of others included."""
    return _sizes(
        [
            ((node.end_lineno or node.lineno) - node.lineno + 1, f"{module.name}.{node.name}")
            for module in modules
            for node in ast.walk(module.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
    )


def _sizes(found: list[tuple[int, str]]) -> Sizes:
    if not found:
        return Sizes(0, 0, 0, 0, "")
    lines = sorted(count for count, _ in found)
    longest, where = max(found)
    return Sizes(len(lines), statistics.median(lines), lines[len(lines) * 9 // 10], longest, where)
