"""`python -m tools.client_states`: draw the states of a client's request into docs/client.md.

The diagram and the meanings come from the table that requests move by (kvstore.client.core.states), so the
page cannot say anything else. A test compares the two.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from kvstore.client.core.states import MOVES, Event, State

PAGE = Path(__file__).resolve().parents[1] / "docs" / "client.md"
_BEGIN, _END = "<!-- drawn from kvstore.client.core.states -->\n", "<!-- end of the drawing -->\n"


def drawn(page: str) -> str:
    """The page with the states drawn anew; raises ValueError if it has no place for them."""
    before, begun, rest = page.partition(_BEGIN)
    _, ended, after = rest.partition(_END)
    if not (begun and ended):
        raise ValueError(f"{PAGE.name} has no place for the states of a request")
    return before + begun + _drawing() + ended + after


def _drawing() -> str:
    moves = [
        f"    {_title(state)} --> {_title(after)}: {_title(event)}" for (state, event), after in MOVES.items()
    ]
    lines = ["", "```mermaid", "stateDiagram-v2", f"    [*] --> {_title(State.CHOOSING)}", *moves]
    lines += [f"    {_title(State.ENDED)} --> [*]", "```", ""]
    for heading, members in (("state", list(State)), ("event", list(Event))):
        rows = [f"| {_title(member)} | {member.value} |" for member in members]
        lines += [f"| {heading} | meaning |", "|---|---|", *rows, ""]
    return "\n".join(lines) + "\n"


def _title(member: Enum) -> str:
    return member.name.lower()


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text()))
