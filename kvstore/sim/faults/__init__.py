"""The kinds of faults that a run may meet: each is a function, and one line in the table of its module."""

from __future__ import annotations

from kvstore.sim.faults import clocks, crashes, damaged_disks, disks, network, streams
from kvstore.sim.faults.scene import DiskDamage, Fault

FAULTS: tuple[Fault | DiskDamage, ...] = (
    *crashes.FAULTS,
    *network.FAULTS,
    *streams.FAULTS,
    *disks.FAULTS,
    *clocks.FAULTS,
    *damaged_disks.FAULTS,
)
"""In this order a seed draws from them."""
