"""What can be asked is asked: a message that only its receiver knows would be found by no other test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import kvstore
from kvstore.kvctl.main import kvctl
from kvstore.protocol.client import CLIENT_REQUESTS
from kvstore.protocol.table import ANSWERS, PEER_TABLE

PACKAGE = Path(kvstore.__file__).parent
PAGE = PACKAGE.parent / "docs" / "kvctl.md"


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
    assert question.__name__ in set(made_in("quorum"))


@pytest.mark.parametrize("part", ["client", "sim/workload.py"])
@pytest.mark.parametrize("request_type", CLIENT_REQUESTS, ids=lambda kind: kind.__name__)
def test_every_request_is_sent_by_the_client_and_by_simulated_users(request_type: Any, part: str) -> None:
    assert request_type.__name__ in set(made_in(part))


def test_every_command_is_on_its_page() -> None:
    table = PAGE.read_text().partition("| command |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1].replace("`", "") for line in table.splitlines() if line.startswith("| `")]
    told = {form.split()[0] for cell in cells for form in cell.split(",")}
    assert set(kvctl.list_commands(click.Context(kvctl))) - told == set()
