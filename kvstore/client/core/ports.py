"""What the core needs of its shell."""

from __future__ import annotations

from typing import Protocol

from kvstore.client.core.calls import Calls


class Port(Protocol):
    """Carries out what the core decides. A node is known by its `Calls`; times are of the shell's clock."""

    def connect(self, calls: Calls) -> None:
        """Keep a connection to this node from now on: handshake, then frames, again whenever it breaks.

        To be told of by `ClientCore.on_connected` and `on_lost` and by `Calls.answer`; not from within this.
        """

    def disconnect(self, calls: Calls) -> None:
        """Close the connection to a node that is no member any more."""

    def wake(self, calls: Calls) -> None:
        """There may be calls to send: take a frame when it can be written."""

    def break_off(self, calls: Calls) -> None:
        """Break the connection, which is silent: `on_lost` follows, and then another handshake."""

    def set_timer(self, when: float) -> None:
        """Call `on_timer` at `when`, and not at any time said before."""

    def fetch_state(self, addresses: list[str]) -> None:
        """Ask these nodes (none: the endpoints) for the cluster state; `on_fetched` tells how that ended."""
