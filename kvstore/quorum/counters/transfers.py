"""What is counted of transfers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TransferCounters:
    """Partitions that this node is filled with (docs/membership.md)."""

    transfer_keys: int = 0
    """Versions that were fetched from old replicas, those that were here already included."""
    transfer_bytes: int = 0
    """Bytes of these, with their keys."""
    transfers_resumed: int = 0
    """Partitions whose transfer went on from where it was before a restart."""
    transfers_proven: int = 0
    """Partitions of which this node was proven to hold all that a read quorum of the old replicas holds."""
