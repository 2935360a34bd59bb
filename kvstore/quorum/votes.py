"""Counting quorums: whether enough members of each of some sets have agreed, or never will.

A quorum is a set of members and how many of them are needed. Usually there is one, W of the N replicas
of a key; while a partition moves there are two, W of the old *and* W of the new replicas, and both must be
won: that is one more pair, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import NamedTuple


class Outcome(Enum):
    """How a vote stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


class Quorum(NamedTuple):
    """`needed` of `members` must agree."""

    members: frozenset[str]
    needed: int


Quorums = tuple[Quorum, ...]
"""All of them must be won."""

NOBODY: frozenset[str] = frozenset()


def count(quorums: Iterable[Quorum], yes: AbstractSet[str], no: AbstractSet[str] = NOBODY) -> Outcome:
    """Won when all quorums are, lost when one of them cannot be any more.

    `no` are members that are not waited for; one of them that agrees all the same counts.
    """
    outcome = Outcome.WON
    for members, needed in quorums:
        if len(members & yes) < needed:
            if len(members - (no - yes) if no else members) < needed:
                return Outcome.LOST
            outcome = Outcome.PENDING
    return outcome


def won(quorums: Iterable[Quorum], yes: AbstractSet[str]) -> bool:
    """Whether all quorums are won."""
    return count(quorums, yes) is Outcome.WON
