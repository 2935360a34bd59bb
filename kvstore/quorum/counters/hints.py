"""What is counted of hints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class HintCounters:
    """Hints that this node keeps for others."""

    hints_stored: int = 0
    """Hints stored, one that replaces another included."""
    hints_delivered: int = 0
    """Hints that their target, or a primary in its place, has taken."""
    hints_rerouted: int = 0
    """Of those delivered: to the primaries, as their target is none any more."""
    hints_dropped: int = 0
    """Hints dropped for one of the next three reasons."""
    hints_overflowed: int = 0
    """No room for one more, by count or by bytes."""
    hints_expired: int = 0
    """Kept for too long."""
    hints_unwritable: int = 0
    """The disk did not take them."""
    hints_unreadable: int = 0
    """Hints on this node's disk that cannot be read, or are for nobody: dropped."""
    hinted_early: int = 0
    """Acknowledged writes whose slow replica got a hint before its patience was over, to free memory."""
