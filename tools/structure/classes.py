"""How much a class holds: its attributes and its methods.

An attribute is what an instance has by its class alone, bases left out: an annotated field of the body
(dataclasses, msgspec structs, named tuples; not `ClassVar`), a name in `__slots__`, and whatever a method
assigns to its first argument. A method is any function of the body, properties and `__init__` included; of
several with one name (overloads, a property and its setter) one counts.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tools.structure.source import Module

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Class:
    """A class and what it holds."""

    module: str
    name: str
    attributes: frozenset[str]
    methods: frozenset[str]


def classes(module: Module) -> Iterator[Class]:
    """All classes of a module, those inside of others too."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef):
            functions = [child for child in node.body if isinstance(child, _Function)]
            methods = frozenset(function.name for function in functions)
            attributes = {*_fields(node), *_slots(node)}
            attributes.update(name for function in functions for name in _assigned(function))
            yield Class(module.name, node.name, frozenset(attributes), methods)


def _fields(node: ast.ClassDef) -> Iterator[str]:
    for child in node.body:
        match child:
            case ast.AnnAssign(target=ast.Name(name)) if "ClassVar" not in ast.unparse(child.annotation):
                yield name


def _slots(node: ast.ClassDef) -> Iterator[str]:
    for child in node.body:
        if isinstance(child, ast.Assign) and ast.unparse(child.targets[0]) == "__slots__":
            names = ast.literal_eval(child.value)
            yield from [names] if isinstance(names, str) else names


def _assigned(function: _Function) -> Iterator[str]:
    """What a method assigns to its first argument; a static or class method has no instance."""
    arguments = [*function.args.posonlyargs, *function.args.args]
    decorators = {ast.unparse(decorator) for decorator in function.decorator_list}
    if not arguments or decorators & {"staticmethod", "classmethod"}:
        return
    for node in ast.walk(function):
        match node:
            case ast.Attribute(value=ast.Name(owner), ctx=ast.Store()) if owner == arguments[0].arg:
                yield node.attr
