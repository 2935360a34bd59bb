"""How far a node is filled with the partitions that are coming to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TransferStatus:
    """Partitions that are `coming` to it, or that it has lost, in the present step of their moves.

    `proven` are those of them of which it is proven to hold all (docs/membership.md).
    """

    coming: int
    proven: int
