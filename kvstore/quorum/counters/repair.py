"""What is counted of anti-entropy, reaping and the recovery of damaged data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class RepairCounters:
    """Anti-entropy, reaping and the recovery of damaged data."""

    repairs: int = 0
    """Versions that anti-entropy brought here, or from here to others."""
    repair_bytes: int = 0
    """Bytes of hashes, keys and versions that anti-entropy and transfers have sent."""
    reaped: int = 0
    """Tombstones and expired versions deleted here."""
    trees_distrusted: int = 0
    """Merkle trees that could not follow a write, and were built anew."""
    trees_corrected: int = 0
    """Merkle trees that were found to be wrong when they were built anew: a defect, repaired by that."""
    quarantines: int = 0
    """Damaged blocks and tables that were fenced off."""
    refetched: int = 0
    """Versions that came back from other replicas for them."""
    unreadable: int = 0
    """Versions and keys on this node's disk that were passed over, since no other node would take them."""
    oversized: int = 0
    """Versions of others that were not taken: with what is here they would be larger than any may be."""
