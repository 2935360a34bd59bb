"""What the invariants look at of a host."""

from __future__ import annotations

from collections.abc import Sized
from typing import Protocol

from kvstore.node.node import Node
from kvstore.sim.machine import Machine
from kvstore.sim.watched_engine import WatchedEngine


class Watched(Protocol):
    """What is looked at of a host."""

    @property
    def machine(self) -> Machine:
        """What its node runs on."""

    @property
    def node(self) -> Node | None:
        """The running node; None while it is down."""

    @property
    def engine(self) -> WatchedEngine:
        """Of the running node."""

    @property
    def requests(self) -> Sized:
        """Those of clients that it has taken and not answered."""
