"""The table of members: what this node believes of each."""

from __future__ import annotations

from collections.abc import Iterable

from kvstore.gossip.member import MAX_INCARNATION, Member, Status, Update


class Membership:
    """One row per member, this node's own included. Updates merge by `Update.supersedes`."""

    __slots__ = ("_me", "_rows")

    def __init__(self, me: str, peers: Iterable[str], incarnation: int, now: float) -> None:
        self._me = me
        # incarnation 0: whatever a peer says of itself replaces it
        self._rows = {node: Member(node, Status.ALIVE, 0, now) for node in sorted(peers)}
        self._rows[me] = Member(me, Status.ALIVE, incarnation, now)

    def __contains__(self, node: str) -> bool:
        return node in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, node: str) -> Member:
        return self._rows[node]

    def members(self) -> tuple[Member, ...]:
        """All rows, in order of node ids."""
        return tuple(self._rows[node] for node in sorted(self._rows))

    def updates(self) -> tuple[Update, ...]:
        """All rows as claims."""
        return tuple(member.update() for member in self.members())

    def alive(self) -> list[str]:
        """The other members that are ALIVE, in a fixed order."""
        return [node for node, row in self._rows.items() if row.status is Status.ALIVE and node != self._me]

    def not_dead(self) -> int:
        """How many members, this node included, are not DEAD."""
        return sum(row.status is not Status.DEAD for row in self._rows.values())

    def merge(self, update: Update, now: float, firsthand: bool = False) -> bool:
        """Take in a claim about a member; False if it says nothing new.

        At the last incarnation a member can refute nothing, so there its own word, `firsthand`, counts.
        """
        row = self._rows[update.node]
        last = firsthand and row.incarnation == update.incarnation == MAX_INCARNATION
        if not (update.supersedes(row.update()) or (last and update.status is not row.status)):
            return False
        self._rows[update.node] = Member(update.node, update.status, update.incarnation, now)
        return True
