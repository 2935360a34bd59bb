"""One node's part in what the members agree on: how cluster states are decided on, spread and taken up."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from kvstore.errors import InvalidRequest, KVError
from kvstore.membership.acceptor import Record
from kvstore.node.adoption import Adoption
from kvstore.node.decisions import Change, Decisions, Respond
from kvstore.node.liveness import Liveness
from kvstore.node.outbox import Outbox
from kvstore.node.parts import Background, Foundation
from kvstore.node.progress import Progress
from kvstore.node.spread import Spread
from kvstore.protocol.instant import Instant
from kvstore.protocol.table import Handler
from kvstore.ring import ClusterState

_PATIENCE = 5.0
"""Seconds that a step of a change may take to be decided on, before it is tried again."""


class Membership:
    """Of one node."""

    def __init__(
        self,
        kept: Callable[[], Record],
        outbox: Outbox,
        base: Foundation,
        background: Background,
        liveness: Liveness,
        rng: random.Random,
    ) -> None:
        self._adoption = Adoption(outbox, base, background, liveness)
        self._spread = Spread(outbox, base, self._adoption)
        self._decisions = Decisions(kept, base, self._adoption, self._spread, rng)
        self._progress = Progress(base, background, self._advance)
        self._adoption.on_adopted = self._on_adopted
        self.handlers: dict[type, Handler] = {
            **self._decisions.handlers,
            **self._spread.handlers,
            **self._progress.handlers,
        }
        """Who takes which message of another member."""

    def start(self, now: Instant) -> None:
        """Wait for states."""
        self._adoption.start(now)
        self._progress.start(now)

    def on_state(self, state: ClusterState, now: Instant) -> None:
        """See Node."""
        self._adoption.on_state(state, now)

    def propose(self, change: Change, respond: Respond, timeout: float, now: Instant) -> None:
        """See Decisions."""
        self._decisions.propose(change, respond, timeout, now)

    def _on_adopted(self, now: Instant) -> None:
        self._spread.on_state()
        self._decisions.on_state()
        self._progress.on_state(now)

    def _advance(self, state: ClusterState, now: Instant) -> None:
        """The next step of what is under way; what becomes of it is told by the state that follows."""
        self._decisions.propose(partial(_unless_late, state), _ignore, _PATIENCE, now)


def _unless_late(wanted: ClusterState, present: ClusterState) -> ClusterState:
    if wanted.epoch != present.epoch + 1:
        raise InvalidRequest("change", f"epoch {wanted.epoch} has been decided on meanwhile")
    return wanted


def _ignore(outcome: ClusterState | KVError) -> None:
    """Whoever is next in turn will see that the step is still the same."""
