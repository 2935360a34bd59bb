"""The tables in docs/ that are made from the source say what the source says."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pytest

from kvstore.bounds import settings_of
from kvstore.quorum.counters import Counters
from kvstore.server.settings_file import TABLES
from tools import tables


@dataclass
class Below:
    """Not this."""

    first: int = 0
    """On two
    lines."""


@dataclass
class Made(Below):
    """Nor this."""

    bare: int = 0
    second: int = 0
    """Another."""


def test_what_is_said_of_a_field_is_found() -> None:
    assert tables.field_docs(Made) == {"first": "On two lines.", "second": "Another."}


def test_every_page_is_current() -> None:
    pages = [page.read_text() for page in sorted(tables.DOCS.glob("*.md"))]
    assert [text for text in pages if tables.filled(text) != text] == [], "run `make tables`"
    found = "".join(pages)
    assert [name for name in tables.TABLES if f"<!-- {name}: " not in found] == []


def test_every_counter_is_documented() -> None:
    assert {field.name for field in fields(Counters)} == set(tables.field_docs(Counters))


@pytest.mark.parametrize("kind", TABLES)
def test_every_setting_is_documented(kind: type[Any]) -> None:
    assert {setting.name for setting in settings_of(kind)} <= set(tables.field_docs(kind))


def test_a_table_is_written_between_its_marks_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tables.TABLES, "made", lambda: iter(["| a |"]))
    second = "<!-- made: b -->\n<!-- end -->\nafter\n"
    text = f"before\n\n<!-- made: old -->\nold\n<!-- end -->\n\nbetween\n\n{second}"
    once = tables.filled(text)
    assert once == (
        "before\n\n<!-- made: old -->\n\n| a |\n\n<!-- end -->\n\nbetween\n\n<!-- made: b -->\n\n| a |\n\n"
        "<!-- end -->\nafter\n"
    )
    assert tables.filled(once) == once
