"""What is counted of reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ReadCounters:
    """Reads that this node has coordinated."""

    read_repairs: int = 0
    """Replicas that a read found stale and brought up to date."""
    hedges: int = 0
    """Replicas asked in addition because another one was late."""
    hedges_won: int = 0
    """Of these, answers that a reply was made of before the late one came."""
    hedges_refused: int = 0
    """Hedges left out because the budget of extra reads was used up."""
    read_trials: int = 0
    """Slow replicas asked in addition, to notice when they are slow no more."""
    wide_reads: int = 0
    """Reads of sessions that asked all replicas, as the first R had not seen what the session has."""
