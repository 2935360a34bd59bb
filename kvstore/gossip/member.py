"""Members as gossip sees them."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.protocol.gossip import Status, Update


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One row of the table; `since` is when it last changed, in monotonic seconds of this node."""

    node: str
    status: Status
    incarnation: int
    since: float

    def update(self) -> Update:
        """This row as a claim to tell others."""
        return Update(self.node, self.status, self.incarnation)
