"""What is counted of clients' requests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class RequestCounters:
    """Requests of clients, where they arrive."""

    gets: int = 0
    """Reads of a key, those passed on to another node included."""
    puts: int = 0
    """Writes of a key, likewise."""
    deletes: int = 0
    """Deletes of a key, likewise."""
    scans: int = 0
    """Pages of scans."""
    errors: int = 0
    """Requests that were answered with an error."""
    forwards: int = 0
    """Requests that were passed on to another node."""
    overloaded: int = 0
    """Requests that were refused because of load; also in `errors`."""
    expired: int = 0
    """Requests, and questions of other nodes, that came when their asker had given up: not carried out."""
    cancelled: int = 0
    """Requests whose client left before they were answered."""
    lww_overwritten: int = 0
    """Values in `lww` buckets that writes coordinated here replaced unseen."""
    lww_discarded: int = 0
    """Values in `lww` buckets that were dropped here for a later one that had not seen them."""
    clock_ahead: int = 0
    """Writes over a value whose time was too far ahead of this node's clock."""
    syncs: int = 0
    """Syncs of the log."""
    defects: int = 0
    """Exceptions that nobody expected; each ended what it happened in, and nothing else."""
