"""What a node has done since it started, in plain integers: exported elsewhere, counted for free."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Each counts events since the start of the process."""

    gets: int = 0
    puts: int = 0
    deletes: int = 0
    errors: int = 0
    forwards: int = 0
    read_repairs: int = 0
    hints_stored: int = 0
    hints_delivered: int = 0
    hints_dropped: int = 0
    hints_overflowed: int = 0
    hints_expired: int = 0
    hints_unwritable: int = 0
    hints_rerouted: int = 0
    lww_overwritten: int = 0
    lww_discarded: int = 0
    clock_ahead: int = 0
    syncs: int = 0
    repairs: int = 0
    repair_bytes: int = 0
    reaped: int = 0
    overloaded: int = 0
    """Requests of clients that were refused because of load: also in `errors`."""
    expired: int = 0
    """Requests and questions of other nodes that came when their asker had given up: not carried out."""
    cancelled: int = 0
    """Requests whose client left before they were answered."""
    hinted_early: int = 0
    """Acknowledged writes whose slow replica got a hint before its patience was over, to free memory."""
    hedges: int = 0
    hedges_won: int = 0
    hedges_refused: int = 0
    read_trials: int = 0
    wide_reads: int = 0
    defects: int = 0
    """Exceptions that nobody expected; each ended what it happened in, and nothing else."""
    frames_refused: int = 0
    """Frames of other nodes of which something was wrong: nothing of them was carried out."""
    hints_unreadable: int = 0
    """Hints that cannot be read, or are for nobody: dropped."""
    unreadable: int = 0
    """Versions and keys on this node's disk that were passed over, since no node would take them."""
    oversized: int = 0
    """Versions of others that were not taken: with what is here they would be larger than any may be."""
    trees_distrusted: int = 0
    """Merkle trees that could not follow a write, and are built anew."""
    quarantines: int = 0
    refetched: int = 0
