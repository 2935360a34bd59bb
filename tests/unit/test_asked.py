"""What can be asked is asked, and what is told is read: no other test would find what only one side knows."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest

import kvstore
from kvstore.client import asynchronous
from kvstore.kvctl.main import kvctl
from kvstore.protocol.client import CLIENT_REQUESTS
from kvstore.protocol.fields import fields_of
from kvstore.protocol.table import ANSWERS, PEER_TABLE

PACKAGE = Path(kvstore.__file__).parent
DOCS = PACKAGE.parent / "docs"


def made_in(part: str) -> Iterator[str]:
    """The names that are called in a package or a module: those of classes make something."""
    place = PACKAGE / part
    for path in [place] if place.is_file() else place.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield node.func.id


@pytest.mark.parametrize("question", sorted(set(ANSWERS.values()), key=repr), ids=lambda kind: kind.__name__)
def test_every_question_of_nodes_is_asked(question: type) -> None:
    assert PEER_TABLE[question].question
    assert question.__name__ in {*made_in("quorum"), *made_in("node")}


def read_where_named(struct: Any) -> Iterator[str]:
    """The fields, and other attributes, that are read in modules of the core which name a struct.

    What all questions have is read in kvstore.node.questions.
    """
    for nodes, names in core():
        if struct.__name__ in names or (PEER_TABLE[struct].question and "partitions_of" in names):
            yield from read_in(nodes, struct)


@cache
def core() -> list[tuple[list[ast.AST], set[str]]]:
    """What each module of the core consists of, and the names in it."""
    parts = ("protocol", "gossip", "quorum", "membership", "node")
    paths = [path for part in parts for path in (PACKAGE / part).rglob("*.py")]
    modules = [list(ast.walk(ast.parse(path.read_text()))) for path in paths]
    return [(nodes, {node.id for node in nodes if isinstance(node, ast.Name)}) for nodes in modules]


def read_in(nodes: list[ast.AST], struct: Any) -> Iterator[str]:
    methods = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        match node:
            case ast.Attribute(attr=name, ctx=ast.Load()) if id(node) not in methods:
                yield name
            case ast.MatchClass(cls=ast.Name(id=name), patterns=patterns) if name == struct.__name__:
                for field, pattern in zip(struct.__struct_fields__, patterns, strict=False):
                    if not isinstance(pattern, ast.MatchAs) or pattern.name:
                        yield field


@pytest.mark.parametrize("struct", PEER_TABLE, ids=lambda kind: kind.__name__)
def test_every_field_that_nodes_send_is_read(struct: Any) -> None:
    assert {field.name for field in fields_of(struct)} - set(read_where_named(struct)) == set()


@pytest.mark.parametrize("part", ["client", "sim/workload.py"])
@pytest.mark.parametrize("request_type", CLIENT_REQUESTS, ids=lambda kind: kind.__name__)
def test_every_request_is_sent_by_the_client_and_by_simulated_users(request_type: Any, part: str) -> None:
    assert request_type.__name__ in set(made_in(part))


def test_every_command_is_on_its_page() -> None:
    table = (DOCS / "kvctl.md").read_text().partition("| command |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1].replace("`", "") for line in table.splitlines() if line.startswith("| `")]
    told = {form.split()[0] for cell in cells for form in cell.split(",")}
    assert set(kvctl.list_commands(click.Context(kvctl))) - told == set()


@pytest.mark.parametrize("kind", [asynchronous.Bucket, asynchronous.Client], ids=lambda kind: kind.__name__)
def test_every_call_of_the_client_is_on_its_page(kind: type) -> None:
    page = (DOCS / "client.md").read_text()
    calls = [name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")]
    assert [name for name in calls if not re.search(rf"[`. ]{name}\(", page)] == []
