"""How a node gets a newer cluster state, and how the others get its own: who hears of a later epoch asks.

That is told with each probe and its answer, which reach every member in time; the document itself goes by the
stream for bulk, to who wants it.
"""

from __future__ import annotations

from collections.abc import Iterable

from kvstore.errors import InvalidRequest
from kvstore.node.adoption import Adoption
from kvstore.node.outbox import Outbox
from kvstore.node.parts import Foundation
from kvstore.protocol.instant import Instant
from kvstore.protocol.spread import AtEpoch, NewState, StateWanted
from kvstore.protocol.table import Handler

_PATIENCE = 1.0
"""Seconds between two times that a document is asked for, or sent to the same node."""


class Spread:
    """Of one node."""

    def __init__(self, outbox: Outbox, base: Foundation, adoption: Adoption) -> None:
        self._send = outbox.send
        self._placements = base.placements
        self._adoption = adoption
        self._counters = base.counters
        self.handlers: dict[type, Handler] = {
            AtEpoch: self.on_epoch,
            StateWanted: self.on_wanted,
            NewState: self.on_new_state,
        }
        """Who takes which message of another member."""
        self._ask_from = 0.0
        self._sent: dict[str, tuple[int, float]] = {}
        """By node the epoch that was sent to it last, and when."""

    def tell(self, nodes: Iterable[str]) -> None:
        """Say at which epoch this node is."""
        for node in nodes:
            self._send(node, AtEpoch(self._placements.state.epoch))

    def want(self, node: str, now: Instant) -> None:
        """Ask a node for its state, which is newer."""
        if now.mono >= self._ask_from:
            self._ask_from = now.mono + _PATIENCE
            self._send(node, StateWanted(self._placements.state.epoch))

    def on_epoch(self, sender: str, message: AtEpoch, now: Instant) -> None:
        """A node says where it is."""
        if message.epoch > self._adoption.newest.epoch:
            self.want(sender, now)

    def on_wanted(self, sender: str, message: StateWanted, now: Instant) -> None:
        """A node is at an epoch, and asks for a later one."""
        state = self._placements.state
        epoch, sent_at = self._sent.get(sender, (0, 0.0))
        if message.epoch >= state.epoch:
            self.tell([sender])
        elif epoch < state.epoch or now.mono >= sent_at + _PATIENCE:
            self._sent[sender] = state.epoch, now.mono
            self._send(sender, NewState(state))

    def on_new_state(self, _sender: str, message: NewState, now: Instant) -> None:
        """A document; one that cannot follow on the present state is counted."""
        try:
            self._adoption.on_state(message.state, now)
        except InvalidRequest:
            self._counters.frames_refused += 1

    def on_state(self) -> None:
        """This node has taken up a newer state: it need not wait for it, and forgets who is no member."""
        self._ask_from = 0.0
        members = self._placements.state.member
        self._sent = {node: sent for node, sent in self._sent.items() if members(node)}
