"""What a network between hosts must be able to do, whatever it is made of.

A host is a node (n1, n2, ...), a place where clients run (c1, c2, ...) or `CONTROL`, the run itself, which
nothing cuts off. Faults are of ordered pairs of hosts, (from, to).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

CONTROL = "control"
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Slow:
    """A slow way: so many bytes a second, and so many seconds late."""

    rate: int
    delay: float


class Network(Protocol):
    """A network of hosts. `delays` and `duplicates` say what only some drivers can do."""

    delays: bool
    duplicates: bool

    def address(self, node: str) -> str:
        """`host:port` where a node listens, as the cluster's members know it."""
        ...

    def command(self, host: str) -> list[str]:
        """What to put before a command so that it runs on a host."""
        ...

    def environment(self, host: str) -> dict[str, str]:
        """Further environment of a program on a host."""
        ...

    async def open(self) -> None:
        """Make the network; this process is on `CONTROL` then."""
        ...

    async def cut(self, pairs: Collection[Pair]) -> None:
        """Nothing passes these ways, everything passes the others."""
        ...

    async def slow(self, ways: Mapping[Pair, Slow]) -> None:
        """These ways are slow, the others are not."""
        ...

    async def duplicate(self, pairs: Collection[Pair]) -> None:
        """Each connection that is opened on these ways is opened twice."""
        ...

    async def reset(self, pairs: Collection[Pair]) -> None:
        """Break the connections that are open on these ways now, with a TCP reset."""
        ...

    async def close(self) -> None:
        """Remove all that was made."""
        ...
