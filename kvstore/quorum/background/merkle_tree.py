"""One Merkle tree: how its nodes are numbered, and what they are made of (`merkle.py` has all of a node)."""

from __future__ import annotations

from kvstore.protocol.peer import NodeHash

FAN_OUT = 16
LEAVES = FAN_OUT * FAN_OUT
ROOT = 0
FIRST_LEAF = 1 + FAN_OUT
NODES = FIRST_LEAF + LEAVES
ALL = LEAVES
"""In the place of a leaf's number: the sum of all."""
COUNT_BITS = 32

_MASK = 2**64 - 1
_COUNT_MASK = 2**COUNT_BITS - 1


def children(number: int) -> range:
    """The nodes below an inner one."""
    return range(FAN_OUT * number + 1, FAN_OUT * (number + 1) + 1)


class Tree:
    """The hashes of one (partition, n). `leaves` holds for each leaf, and then for all, one number.

    Its lower 32 bits count the items, the rest is their sum: so a write changes a leaf with one addition.
    """

    __slots__ = ("leaves",)

    def __init__(self) -> None:
        self.leaves = [0] * (LEAVES + 1)

    def change(self, leaf: int, difference: int, items: int) -> None:
        """Add to a leaf."""
        change = (difference << COUNT_BITS) + items
        self.leaves[leaf] += change
        self.leaves[ALL] += change

    def node(self, number: int) -> NodeHash:
        """The hash of a node."""
        if number == ROOT:
            total = self.leaves[ALL]
        elif number >= FIRST_LEAF:
            total = self.leaves[number - FIRST_LEAF]
        else:
            total = sum(self.leaves[FAN_OUT * (number - 1) : FAN_OUT * number])
        return NodeHash(total >> COUNT_BITS & _MASK, total & _COUNT_MASK)

    def same(self, other: Tree) -> bool:
        """Whether all leaves are equal."""
        return all(self.node(number) == other.node(number) for number in range(FIRST_LEAF, NODES))
