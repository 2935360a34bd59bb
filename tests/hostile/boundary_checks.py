"""The checks of the boundary that are taken out, each with an attack that this check alone keeps off.

Where two checks stand behind each other, the attack is one that the other lets pass.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.hostile import (
    checks_of_budgets,
    checks_of_disks,
    checks_of_frames,
    checks_of_requests,
    checks_of_streams,
)
from tests.hostile.plants import Check

TOPICS = {
    **checks_of_frames.TOPICS,
    **checks_of_requests.TOPICS,
    **checks_of_budgets.TOPICS,
    **checks_of_streams.TOPICS,
    **checks_of_disks.TOPICS,
}
CHECKS = tuple(Check(topic, *row) for topic, rows in TOPICS.items() for row in rows)
QUICK = (
    "a digest's length",
    "a counter is far from its end",
    "an incarnation in a frame counts as the last one",
    "the node's own id",
    "the signature",
    "numbers of a manifest",
)
"""Those that `make test` takes out."""


def table() -> Iterator[str]:
    """All of them as a page shows them."""
    yield "| of | check taken out | caught by |"
    yield "|---|---|---|"
    for topic, rows in TOPICS.items():
        for place, (name, _, test) in enumerate(rows):
            yield f"| {'' if place else topic} | {name} | {_cell(test)} |"


def _cell(test: str) -> str:
    """Its file, and its case or its name: a page is read by people."""
    file, _, name = test.removeprefix("tests/").partition("::test_")
    name, _, case = name.partition("[")
    return f"`{file}`: {case.removesuffix(']') or name.replace('_', ' ')}"
