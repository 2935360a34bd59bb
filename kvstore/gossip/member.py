"""Members as gossip sees them, and what nodes tell each other about them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

MAX_INCARNATION = 2**48 - 1
"""A claim about a higher incarnation counts as one about this: far below the type's end, and beyond what
restarts and refutations come to in the life of a cluster. A member that was pushed so far stays there, and is
believed when it says itself that it is alive (docs/gossip.md)."""


class Status(Enum):
    """What is believed of a member; within one incarnation it only gets worse (SWIM section 4.2)."""

    ALIVE = 1
    SUSPECT = 2
    DEAD = 3


@dataclass(frozen=True, slots=True)
class Update:
    """A claim about `node`, valid for one of its incarnations (0: it was never heard of)."""

    node: str
    status: Status
    incarnation: int

    def supersedes(self, other: Update) -> bool:
        """Whether this claim about the same node replaces `other`.

        The higher incarnation wins, then the worse status. It is a total order, so that tables
        which have seen the same claims are equal, whatever the order they came in.
        """
        return (self.incarnation, self.status.value) > (other.incarnation, other.status.value)


@dataclass(frozen=True, slots=True)
class Member:
    """One row of the table; `since` is when it last changed, in monotonic seconds of this node."""

    node: str
    status: Status
    incarnation: int
    since: float

    def update(self) -> Update:
        """This row as a claim to tell others."""
        return Update(self.node, self.status, self.incarnation)
