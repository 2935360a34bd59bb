"""docs/request-states.md shows the states that the code has."""

from __future__ import annotations

import pytest

from kvstore.quorum.write import WriteEvent, WriteOperation, WriteState
from tools.operation_states import PAGE, drawn


def test_the_page_is_drawn_from_the_tables() -> None:
    page = PAGE.read_text()
    assert drawn(page) == page, "run `python -m tools.operation_states`"


def test_a_move_that_is_added_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    page = PAGE.read_text()
    moves = {**WriteOperation.MOVES, (WriteState.REPLIED, WriteEvent.GIVEN_UP): WriteState.OWING}
    monkeypatch.setattr(WriteOperation, "MOVES", moves)
    assert "replied --> owing: given_up" in drawn(page)
    assert drawn(page) != page


def test_a_kind_without_a_place_is_reported() -> None:
    with pytest.raises(ValueError, match="states of a write"):
        drawn("# Operations\n")
