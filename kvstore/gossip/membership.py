"""The table of members: what this node believes of each."""

from __future__ import annotations

import random
from collections.abc import Iterable

from kvstore.gossip.member import MemberRow
from kvstore.protocol.fields import MAX_INCARNATION
from kvstore.protocol.gossip import Status, Update


class Membership:
    """One row per member, this node's own included. A claim replaces the row that it supersedes."""

    __slots__ = ("_me", "_rows")

    def __init__(self, me: str, peers: Iterable[str], incarnation: int, now: float) -> None:
        self._me = me
        self._rows = _all_alive(me, peers, incarnation, now)

    def __contains__(self, node: str) -> bool:
        return node in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, node: str) -> MemberRow:
        return self._rows[node]

    def begin_anew(self, now: float) -> None:
        """As if nothing had been heard yet; this node keeps its incarnation."""
        peers = [node for node in self._rows if node != self._me]
        self._rows = _all_alive(self._me, peers, self._rows[self._me].incarnation, now)

    def on_members(self, new: Iterable[str], gone: Iterable[str], now: float) -> None:
        """Some members are new, others are none any more."""
        for node in gone:
            del self._rows[node]
        for node in new:
            self._rows[node] = MemberRow(node, Status.ALIVE, 0, now)

    def members(self) -> tuple[MemberRow, ...]:
        """All rows, in order of node ids."""
        return tuple(self._rows[node] for node in sorted(self._rows))

    def updates(self) -> tuple[Update, ...]:
        """All rows as claims."""
        return tuple(member.update() for member in self.members())

    def part(self, to: str, most: int, rng: random.Random) -> tuple[Update, ...]:
        """Rows for one message to `to`: all, or this node's, the receiver's and `most` others.

        Those that are not ALIVE come first, since most tables have the rest already; among equals, chance
        decides.
        """
        if len(self._rows) <= most + 2:
            return self.updates()
        others = [row for node, row in self._rows.items() if node not in (self._me, to)]
        doubtful = [row for row in others if row.status is not Status.ALIVE]
        alive = [row for row in others if row.status is Status.ALIVE]
        chosen = rng.sample(doubtful, min(len(doubtful), most))
        chosen += rng.sample(alive, min(len(alive), most - len(chosen)))
        return tuple(row.update() for row in (self._rows[self._me], self._rows[to], *chosen))

    def alive(self) -> list[str]:
        """The other members that are ALIVE, in a fixed order."""
        return [node for node, row in self._rows.items() if row.status is Status.ALIVE and node != self._me]

    def not_dead(self) -> int:
        """How many members, this node included, are not DEAD."""
        return sum(row.status is not Status.DEAD for row in self._rows.values())

    def accept(self, update: Update, now: float, firsthand: bool = False) -> bool:
        """Take in a claim about a member; False if it says nothing new.

        At the last incarnation a member can refute nothing, so there its own word, `firsthand`, counts.
        """
        row = self._rows[update.node]
        last = firsthand and row.incarnation == update.incarnation == MAX_INCARNATION
        if not (update.supersedes(row.update()) or (last and update.status is not row.status)):
            return False
        self._rows[update.node] = MemberRow(update.node, update.status, update.incarnation, now)
        return True


def _all_alive(me: str, peers: Iterable[str], incarnation: int, now: float) -> dict[str, MemberRow]:
    # incarnation 0: whatever a peer says of itself replaces it
    rows = {node: MemberRow(node, Status.ALIVE, 0, now) for node in sorted(peers)}
    rows[me] = MemberRow(me, Status.ALIVE, incarnation, now)
    return rows
