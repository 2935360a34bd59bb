"""What members tell each other while partitions move, and when this node proposes the next step.

Each tells all others which epoch it has taken up, and of which partitions that are coming to it it is proven:
at each change, and again and again as long as anything moves, so that neither a message that is lost nor a
receiver that starts anew has to be noticed. So every node knows when a step is over. The living member with
the lowest id proposes the next one, the others later, each when those before it seem to have failed.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from kvstore.membership.tracker import Tracker
from kvstore.node.parts import Background, Foundation
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import MoveProgress
from kvstore.protocol.table import Handler
from kvstore.ring import ClusterState

_TELL_AGAIN = 5.0
_PARTITIONS_A_MESSAGE = 1024
_SOON = 0.1
"""Seconds after news, so that what comes together is looked at together."""
_GATHER = 5.0
"""So long a move that may go on waits for the others, as each epoch costs every node a write."""
_STAGGER = 3.0
"""Seconds between the proposals of two members: longer than a decision takes."""
_PROPOSE_AGAIN = 10.0


class Progress:
    """Of one node. `propose` is called with the state that should be next, and again while it is not."""

    def __init__(
        self,
        base: Foundation,
        background: Background,
        propose: Callable[[ClusterState, Instant], None],
    ) -> None:
        self._send = base.rpc.send
        self._placements = base.placements
        self._transfers = background.transfers
        self._tracker = Tracker(base.placements.state)
        self._tell_at = 0.0
        self._some_since = inf
        self._all_since = inf
        """Since when some of the moves, and all of them, may go on to their next step."""
        self._propose_after = 0.0
        self._timer = base.deadlines.timer(self._on_time)
        self._propose = propose
        background.transfers.told = self.changed
        self.handlers: dict[type, Handler] = {MoveProgress: self.on_progress}
        """Who takes which message of another member."""

    def start(self, now: Instant) -> None:
        """Tell the others at once how far this node is."""
        self.changed(now)

    def on_state(self, now: Instant) -> None:
        """This node has taken up another state."""
        self._tracker.on_state(self._placements.state)
        self._some_since = self._all_since = inf
        self._propose_after = 0.0
        self.changed(now)

    def changed(self, now: Instant) -> None:
        """There is something new to tell."""
        self._tell_at = 0.0
        self._timer.set_by(now.mono + _SOON)

    def on_progress(self, sender: str, message: MoveProgress, now: Instant) -> None:
        """Another member says how far it is."""
        self._heard(sender, message.epoch, message.proven)
        if self._placements.state.moves:
            self._timer.set_by(now.mono + _SOON)

    def _heard(self, node: str, epoch: int, proven: tuple[int, ...]) -> None:
        self._tracker.on_epoch(node, epoch)
        for partition in proven:
            self._tracker.on_proven(node, partition, epoch)

    def _on_time(self, now: Instant) -> None:
        if not self._placements.state.moves:
            return
        if self._tell_at <= now.mono:
            self._tell()
            self._tell_at = now.mono + _TELL_AGAIN
        self._timer.set(min(self._tell_at, self._propose_if_due(now)))

    def _tell(self) -> None:
        """All others, and oneself. A proof is of the present step, so it is told by the present epoch."""
        name, epoch, proven = self._placements.name, self._placements.state.epoch, self._transfers.proven
        self._heard(name, epoch, proven)
        pages = range(0, len(proven) or 1, _PARTITIONS_A_MESSAGE)
        for message in [MoveProgress(epoch, proven[i : i + _PARTITIONS_A_MESSAGE]) for i in pages]:
            for node in self._placements.others:
                self._send(node, message)

    def _propose_if_due(self, now: Instant) -> float:
        """Propose when it is this node's turn; returns when to look again."""
        found = self._tracker.next()
        if found is None:
            self._some_since = inf
            return inf
        self._some_since = min(self._some_since, now.mono)
        if all(map(self._tracker.may_advance, self._placements.state.moves)):
            self._all_since = min(self._all_since, now.mono)
        before = sum(
            self._placements.alive(node) for node in self._placements.others if node < self._placements.name
        )
        due = min(self._some_since + _GATHER, self._all_since) + before * _STAGGER
        if max(due, self._propose_after) > now.mono:
            return max(due, self._propose_after)
        self._propose_after = now.mono + _PROPOSE_AGAIN
        self._propose(found, now)
        return self._propose_after
