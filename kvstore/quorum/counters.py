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
    quarantines: int = 0
    refetched: int = 0
