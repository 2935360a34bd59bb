"""What a nemesis is: a kind of fault that can be planned, made and undone."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any, Protocol

from jepsen.cluster import Cluster

Value = Any
"""What a fault does, as the history has it: lists, dicts, texts, numbers."""


class NotNow(Exception):
    """The fault cannot be made in the state that the cluster is in; the message says why."""


class Nemesis(Protocol):
    """One kind of fault. `longest` is how many seconds it lasts at most."""

    name: str
    longest: float

    def reason_to_skip(self, cluster: Cluster) -> str:
        """Why this cluster cannot have this fault; empty if it can."""
        ...

    def plan(self, rng: random.Random, cluster: Cluster) -> Value:
        """What exactly to do, drawn before the run: the same seed draws the same."""
        ...

    async def start(self, cluster: Cluster, value: Value) -> None:
        """Make the fault. Raises NotNow."""
        ...

    async def stop(self, cluster: Cluster, value: Value) -> None:
        """Undo it."""
        ...


class Recurring:
    """A fault that takes doing for as long as it lasts: `go_on` runs from `start` to `stop`."""

    _task: asyncio.Task[None] | None = None

    async def go_on(self, cluster: Cluster, value: Value) -> None:
        """Do it again and again; cancelled in the end."""
        raise NotImplementedError

    async def start(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        self._task = asyncio.create_task(self.go_on(cluster, value))

    async def stop(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task


def some(rng: random.Random, nodes: tuple[str, ...], least: int, most: int) -> list[str]:
    """Some of the nodes, in order."""
    return sorted(rng.sample(nodes, rng.randint(least, most)))
