"""What must hold at every moment, of all nodes together; asserted when it happens, not only at the end.

The simulator sees all disks and all messages at once, so it can say what no node can: on how many disks a
version is when a client is told that it is stored. Frames that are under way are not searched: what one of
them must not bring any more is found when it is written. `counts` tells how often each was checked.
"""

from kvstore.sim.invariants.invariants import Invariants

__all__ = ["Invariants"]
