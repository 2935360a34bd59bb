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
    syncs: int = 0
    repairs: int = 0
    repair_bytes: int = 0
    reaped: int = 0
    quarantines: int = 0
    refetched: int = 0
