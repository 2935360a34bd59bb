"""Probes: whom to ask next, and what has come of it (SWIM sections 3.1 and 4.3)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence


class Rotation:
    """Members in random order, each once per round: none waits longer than two rounds for its probe."""

    __slots__ = ("_left", "_nodes", "_rng")

    def __init__(self, nodes: Iterable[str], rng: random.Random) -> None:
        self._nodes: Sequence[str] = sorted(nodes)
        self._rng = rng
        self._left: list[str] = []

    def on_members(self, nodes: Sequence[str], new: Iterable[str]) -> None:
        """These are the members now. The new ones take a random place in the round that is under way."""
        self._nodes = nodes
        for node in new:
            self._left.insert(self._rng.randint(0, len(self._left)), node)

    def next(self, wanted: Callable[[str], bool]) -> str | None:
        """The next member that is `wanted`, None when there is none."""
        for _ in range(2):
            while self._left:
                node = self._left.pop()
                if wanted(node):
                    return node
            self._left = self._rng.sample(self._nodes, len(self._nodes))
        return None


class Probe:
    """One probe of `target`: a ping until `direct_until`, helpers' pings besides until `until`."""

    __slots__ = ("_direct_until", "_helpers", "_nacks", "_until", "sequence", "target")

    def __init__(self, target: str, sequence: int, direct_until: float, until: float) -> None:
        self.target = target
        self.sequence = sequence
        self._direct_until = direct_until
        self._until = until
        self._helpers: list[str] | None = None
        self._nacks: list[str] = []

    @property
    def asked(self) -> bool:
        """Whether helpers were asked."""
        return self._helpers is not None

    @property
    def deadline(self) -> float:
        """When the next step is due: to ask helpers, then to give up."""
        return self._until if self.asked else self._direct_until

    def ask(self, helpers: list[str]) -> None:
        """The target was silent: these are asked to try."""
        self._helpers = helpers

    def answers(self, sender: str, sequence: int) -> bool:
        """Whether an Ack or Nack belongs to this probe."""
        return sequence == self.sequence and (sender == self.target or sender in (self._helpers or ()))

    def on_nack(self, sender: str) -> None:
        """A helper has no answer either, but is well."""
        if sender not in self._nacks:
            self._nacks.append(sender)

    def blame(self) -> int:
        """How far the failure may be this node's own fault: by each helper that was silent too."""
        return len(self._helpers) - len(self._nacks) if self._helpers else 1

    def delay(self, seconds: float) -> None:
        """Wait longer."""
        self._direct_until += seconds
        self._until += seconds
