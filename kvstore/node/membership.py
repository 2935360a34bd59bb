"""One node's part in what the members agree on: how cluster states are decided on, spread and taken up."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from kvstore.membership.acceptor import Record
from kvstore.node.adoption import Adoption
from kvstore.node.decisions import Change, Decisions, Respond
from kvstore.node.liveness import Liveness
from kvstore.node.outbox import Outbox
from kvstore.node.parts import Background, Foundation
from kvstore.node.spread import Spread
from kvstore.protocol.instant import Instant
from kvstore.ring import ClusterState


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
        self._adoption.on_adopted = self._on_adopted
        self.handlers: dict[type, Callable[[str, Any, Instant], None]] = {
            **self._decisions.handlers,
            **self._spread.handlers,
        }
        """Who takes which message of another member."""

    def start(self, now: Instant) -> None:
        """Wait for states."""
        self._adoption.start(now)

    def on_state(self, state: ClusterState, now: Instant) -> None:
        """See Node."""
        self._adoption.on_state(state, now)

    def propose(self, change: Change, respond: Respond, timeout: float, now: Instant) -> None:
        """See Decisions."""
        self._decisions.propose(change, respond, timeout, now)

    def _on_adopted(self) -> None:
        self._spread.on_state()
        self._decisions.on_state()
