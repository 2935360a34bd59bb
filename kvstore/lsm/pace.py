"""How jobs leave the machine to those who must not wait."""

from collections.abc import Callable

Pace = Callable[[int], None]
"""Called between the small steps of a job, with the bytes that the last one wrote or freed: it may wait."""


def full_speed(_written: int) -> None:
    """The pace of those who wait for the result."""
