"""Vocabulary: modules of values and ports, which any number of others may use (docs/structure.md).

A module is vocabulary when neither it nor any module that it uses holds anything that changes:

- each class is immutable (a frozen dataclass or struct, a named tuple, an enum, an exception) or a port (a
  Protocol), and no public field of it is a dict, a list or a set;
- no function rebinds a global name, and no global is an empty collection, made to be filled.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping

from tools.structure.imports import Uses
from tools.structure.source import Module

_IMMUTABLE = {"NamedTuple", "Enum", "IntEnum", "StrEnum", "Flag", "IntFlag", "Protocol", "Exception"}
_COLLECTIONS = {"dict", "list", "set", "deque", "defaultdict", "Counter"}


def reasons_against(
    name: str, modules: Mapping[str, Module], graph: Uses, shared: Collection[str]
) -> Iterator[str]:
    """Why a module is no vocabulary, one line each; `shared` are modules that are not asked."""
    waiting, seen = [name], {name}
    while waiting:
        at = waiting.pop()
        for what in _mutable(modules[at]):
            yield f"{name} is no vocabulary: {what} of {at}"
        new = {used for used in graph[at] if used not in seen and not is_of(used, shared)}
        seen |= new
        waiting += sorted(new)


def is_of(name: str, parts: Collection[str]) -> bool:
    """Whether a module is one of `parts`, or lies below one."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _mutable(module: Module) -> Iterator[str]:
    frozen: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef):
            if _is_immutable(node, frozen):
                frozen.add(node.name)
            else:
                yield f"mutable class {node.name}"
            yield from (f"mutable field {node.name}.{field}" for field in _mutable_fields(node))
        elif isinstance(node, ast.Global):
            yield f"global {', '.join(node.names)}"
    for statement in module.tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and _is_empty_collection(statement.value):
            yield f"collection {ast.unparse(statement).partition(' =')[0]}"


def _is_immutable(node: ast.ClassDef, frozen: Collection[str]) -> bool:
    """Whether its own head says so, or that of a class of the same module that it stands on."""
    bases = {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}
    decorators = [decorator for decorator in node.decorator_list if isinstance(decorator, ast.Call)]
    declared = [*node.keywords, *(keyword for call in decorators for keyword in call.keywords)]
    says_frozen = any(k.arg == "frozen" and ast.unparse(k.value) == "True" for k in declared)
    return says_frozen or bool(bases & (_IMMUTABLE | set(frozen)))


def _mutable_fields(node: ast.ClassDef) -> Iterator[str]:
    """Public ones; a private one may remember what follows from the others."""
    for child in node.body:
        match child:
            case ast.AnnAssign(target=ast.Name(name), annotation=kind) if not name.startswith("_"):
                if ast.unparse(kind).partition("[")[0] in _COLLECTIONS:
                    yield name


def _is_empty_collection(value: ast.expr | None) -> bool:
    match value:
        case ast.Dict(keys=[]) | ast.List(elts=[]):
            return True
        case ast.Call(func=ast.Name(kind), args=[]):
            return kind in _COLLECTIONS
        case _:
            return False
