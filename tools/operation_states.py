"""`python -m tools.operation_states`: draw the states of each operation into docs/request-states.md.

The diagrams and the meanings of states and events come from the tables that the operations move by
(`MOVES`), so the page cannot say anything else. A test compares the two.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from kvstore.quorum.flow import RunningFlow
from kvstore.quorum.forward import ForwardOperation
from kvstore.quorum.operation import Operation
from kvstore.quorum.read import ReadOperation
from kvstore.quorum.write import WriteOperation

PAGE = Path(__file__).resolve().parents[1] / "docs" / "request-states.md"
KINDS: dict[str, type[Operation | RunningFlow]] = {
    "write": WriteOperation,
    "read": ReadOperation,
    "forward": ForwardOperation,
    "flow": RunningFlow,
}
_BEGIN, _END = "<!-- drawn from {} -->\n", "<!-- end of {} -->\n"


def drawn(page: str) -> str:
    """The page with the part of each kind drawn anew; raises ValueError if one has no place in it."""
    for name, kind in KINDS.items():
        begin, end = _BEGIN.format(name), _END.format(name)
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"{PAGE.name} has no place for the states of a {name}")
        page = before + begin + _part(kind) + end + after
    return page


def _part(kind: type[Operation | RunningFlow]) -> str:
    moves = [(_title(state), _title(event), _title(after)) for (state, event), after in kind.MOVES.items()]
    states = list(
        dict.fromkeys(state for (before, _), after in kind.MOVES.items() for state in (before, after))
    )
    events = list(dict.fromkeys(event for _, event in kind.MOVES))
    lines = ["", "```mermaid", "stateDiagram-v2", f"    [*] --> {_title(states[0])}"]
    lines += [f"    {before} --> {after}: {event}" for before, event, after in moves]
    lines += [f"    {_title(states[-1])} --> [*]", "```", ""]
    lines += [*_meanings("state", states), "", *_meanings("event", events), ""]
    return "\n".join(lines) + "\n"


def _meanings(heading: str, members: list[Enum]) -> list[str]:
    return [
        f"| {heading} | meaning |",
        "|---|---|",
        *(f"| {_title(member)} | {member.value} |" for member in members),
    ]


def _title(member: Enum) -> str:
    return member.name.lower()


def main() -> None:
    """Draw the page anew."""
    PAGE.write_text(drawn(PAGE.read_text()))


if __name__ == "__main__":
    main()
