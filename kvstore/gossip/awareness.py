"""How well this node itself is: Lifeguard's local health multiplier (section IV-A)."""

from __future__ import annotations


class Awareness:
    """A score from 0 (healthy) to `maximum`; a sick node gives the others more time."""

    __slots__ = ("_maximum", "score")

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self.score = 0

    @property
    def multiplier(self) -> int:
        """What to multiply probe times with."""
        return self.score + 1

    def better(self) -> None:
        """A probe was answered."""
        self.score = max(0, self.score - 1)

    def worse(self, by: int) -> None:
        """Something went wrong that may be this node's own fault."""
        self.score = min(self._maximum, self.score + by)
