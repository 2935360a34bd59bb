"""A partition that moves from one replica list to another, as the cluster state names it."""

from __future__ import annotations

from enum import Enum

import msgspec


class Step(Enum):
    """Where a move is; each step is an epoch of its own. A partition without a move is *new alone*."""

    WRITE_BOTH_READ_OLD = "write-both-read-old"
    WRITE_BOTH_READ_NEW = "write-both-read-new"


class Move(msgspec.Struct, frozen=True):
    """In both steps a write needs W of the `old` and W of the `new` replicas; see docs/membership.md.

    `emptied` are old replicas that have lost their data: as old ones they count neither for reads nor for
    writes. A partition whose lists are equal moves onto itself, to have these filled again.
    """

    partition: int
    old: tuple[str, ...]
    new: tuple[str, ...]
    step: Step
    emptied: tuple[str, ...] = ()

    @property
    def read(self) -> tuple[str, ...]:
        """The list that is read by."""
        return self.old if self.step is Step.WRITE_BOTH_READ_OLD else self.new
