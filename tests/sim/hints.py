"""Hints that stay where they are, as long as a test wants them there."""

from __future__ import annotations

from collections.abc import Callable

from kvstore.sim.host import Host


def hold_hints_back(keeper: Host) -> Callable[[], None]:
    """A node believes of all targets of its hints that they are dead; returns what undoes that.

    Only its replay believes it.
    """
    assert keeper.node is not None
    replay = keeper.node.background.replay

    def unreachable(_: str) -> bool:
        return False

    replay._reachable = unreachable  # type: ignore[method-assign, assignment]

    def let_go() -> None:
        del replay._reachable
        replay.on_state()

    return let_go
