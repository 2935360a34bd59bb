"""Which module uses which.

- Every import counts, wherever it stands: at the top, in a function, under `if TYPE_CHECKING`.
- A name imported from a package is a use of the module that defines it: `from kvstore.lsm import Engine`
  uses kvstore.lsm.engine, not kvstore.lsm. The package's `__init__` is used by those who import what it
  defines itself, or who import it whole (`import kvstore.lsm`).
- An `__init__` that only hands a name on does not use the module that defines it; one that also reads the
  name in its own code does.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from tools.structure.source import Module

Uses = dict[str, set[str]]
"""For each module those that it uses, itself left out."""


def uses(modules: Mapping[str, Module]) -> Uses:
    """The graph of imports between these modules."""
    handed_on = {name: dict(_bound(module)) for name, module in modules.items() if module.is_package}
    return {name: _used_by(module, modules, handed_on) for name, module in modules.items()}


def users(graph: Uses) -> Uses:
    """For each module those that use it."""
    return {name: {user for user, used in graph.items() if name in used} for name in graph}


def _used_by(
    module: Module, modules: Mapping[str, Module], handed_on: Mapping[str, Mapping[str, tuple[str, str]]]
) -> set[str]:
    read = {n.id for n in ast.walk(module.tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    found = set()
    for bound, (origin, name) in _bound(module):
        if not module.is_package or bound in read:
            found.add(_definer(origin, name, modules, handed_on))
    return (found & modules.keys()) - {module.name}


def _definer(
    origin: str,
    name: str,
    modules: Mapping[str, Module],
    handed_on: Mapping[str, Mapping[str, tuple[str, str]]],
) -> str:
    """The module where a name that is imported from `origin` comes from."""
    seen = set()
    while (origin, name) not in seen:
        seen.add((origin, name))
        if f"{origin}.{name}" in modules:
            return f"{origin}.{name}"
        origin, name = handed_on.get(origin, {}).get(name, (origin, name))
    return origin


def _bound(module: Module) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each name that an import binds, with its module and its name there (empty for the module itself)."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0], (alias.name, "")
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(module, node)
            for alias in node.names:
                yield alias.asname or alias.name, (origin, alias.name)


def _origin(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    above = parts[: len(parts) - node.level + module.is_package]
    return ".".join([*above, node.module] if node.module else above)
