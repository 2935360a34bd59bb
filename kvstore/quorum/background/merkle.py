"""Merkle trees over what this node's replica holds: one per partition and n (Dynamo section 4.7).

A leaf covers a range of tokens. It is the sum, modulo 2^64, of a hash of each key with its version, and
their count: a write takes the old hash out and puts the new one in. (With XOR two equal hashes cancel, and
pairs of rows that are missing go unnoticed: BUGS 18.) An inner node is the sum of its leaves.
"""

from __future__ import annotations

import mmh3

from kvstore.config import Limits
from kvstore.errors import Corruption, InvalidRequest
from kvstore.lsm.reading import Scan
from kvstore.protocol.peer import NodeHash, TreeNode
from kvstore.quorum.background.merkle_tree import ALL, COUNT_BITS, LEAVES, NODES, Tree
from kvstore.ring import ClusterState, check_data_key, partition_bounds, token_of
from kvstore.versions import EncodedVersion, InternalKey

_LEAF_BITS = LEAVES.bit_length() - 1
_TOKEN_BITS = 64
_LIMITS = Limits()
_hash64 = mmh3.hash64
_digest = mmh3.mmh3_x64_128_digest
_SLICE_BYTES = 1024 * 1024
_SCAN_PRICE = 16
"""What beginning a scan costs, in entries."""


def item(key: InternalKey, version: EncodedVersion) -> int:
    """64 bits, signed, that stand for an internal key with its encoded version: for trees and exchanges."""
    return _hash64(_digest(version) + key)[0]


_Trees = dict[int, Tree]
"""By n."""


class Trees:
    """All trees of one node. Those of a partition can be asked when a scan of it has been taken in.

    Writes go on meanwhile: the scan will come to what lies behind its place, the rest changes the new trees.
    """

    def __init__(self, state: ClusterState) -> None:
        bits = state.ring.partitions.bit_length() - 1
        self.partitions = state.ring.partitions
        self.corrected = 0
        """Trees that were found to be wrong when they were built anew."""
        self._partition_shift = _TOKEN_BITS - bits
        self._leaf_shift = _TOKEN_BITS - bits - _LEAF_BITS
        self.ns, self._usual_n, self._n = _ns(state)
        self._ready: list[_Trees | None] = [None] * self.partitions
        self._place = 0
        self._only_missing = False
        self._new = self._empty()
        self._cursor = partition_bounds(0, self.partitions)[0]

    def on_state(self, state: ClusterState) -> bool:
        """The cluster state has changed; whether all trees have to be built anew.

        They must if the number of replicas of some bucket is another, as its keys change trees.
        """
        found = _ns(state)
        if found == (self.ns, self._usual_n, self._n):
            return False
        self.ns, self._usual_n, self._n = found
        self._ready = [None] * self.partitions
        self.rebuild()
        return True

    def _empty(self) -> _Trees:
        return {n: Tree() for n in self.ns}

    def update(self, key: InternalKey, old: EncodedVersion, new: EncodedVersion) -> None:
        """The stored version of `key` has changed; empty stands for none."""
        token = int.from_bytes(key[1:9], "big")
        partition = token >> self._partition_shift
        trees = self._ready[partition]
        building = partition == self._place and key < self._cursor
        if trees is None and not building:
            return
        n = self._n.get(key[9 : key.index(0, 9)], self._usual_n)
        leaf = token >> self._leaf_shift & (LEAVES - 1)
        # written out: this is on the way of every write
        change = (_hash64(_digest(new) + key)[0] << COUNT_BITS) + 1 if new else 0
        if old:
            change -= (_hash64(_digest(old) + key)[0] << COUNT_BITS) + 1
        if trees is not None:
            leaves = trees[n].leaves
            leaves[leaf] += change
            leaves[ALL] += change
        if building:
            leaves = self._new[n].leaves
            leaves[leaf] += change
            leaves[ALL] += change

    def n_of(self, key: InternalKey) -> int:
        """The n of the bucket of an internal key; 0 for what is none, and so in no tree.

        Such keys are only where an earlier version took them from a wrong peer. Nobody can ask for them.
        """
        try:
            check_data_key(key, _LIMITS)
        except InvalidRequest:
            return 0
        return self._n.get(key[9 : key.index(0, 9)], self._usual_n)

    def leaf_of(self, key: InternalKey) -> int:
        """The leaf that an internal key falls into, from 0."""
        return token_of(key) >> self._leaf_shift & (LEAVES - 1)

    def leaf_bounds(self, partition: int, leaf: int) -> tuple[bytes, bytes]:
        """The first internal key of a leaf, and the first behind it."""
        return partition_bounds(partition * LEAVES + leaf, self.partitions * LEAVES)

    def node(self, name: TreeNode) -> NodeHash | None:
        """The hash of a node, None while it is not known or when there is no such tree."""
        if not 0 <= name.partition < self.partitions or not 0 <= name.number < NODES:
            return None
        ready = self._ready[name.partition]
        tree = ready.get(name.n) if ready else None
        return tree.node(name.number) if tree else None

    # from scans

    @property
    def building(self) -> bool:
        """Whether `build` has anything left to do."""
        return self._place < self.partitions

    def rebuild(self) -> None:
        """Begin to build all trees anew; until then the old ones stay in use."""
        self._only_missing = False
        self._begin(0)

    def forget(self, first: bytes, last: bytes) -> None:
        """It is not known any more what is stored under some of the keys from `first` to `last`."""
        for partition in range(self.partitions):
            start, end = partition_bounds(partition, self.partitions)
            if start <= last and first < end:
                self._ready[partition] = None
                if partition == self._place:
                    self._begin(partition)

    def build_missing(self) -> None:
        """Begin to build the trees that are not known."""
        if not self.building:
            self._only_missing = True
        self._begin(0)

    def build(self, scan: Scan, entries: int) -> None:
        """Take in about so many more entries."""
        while self.building and entries > 0:
            try:
                taken = self._take_in(scan, entries)
            except Corruption:
                # without trees it is not exchanged: a key that cannot be read must not seem to be missing
                self._ready[self._place] = None
                self._begin(self._place + 1)
                taken = 0
            entries -= taken + _SCAN_PRICE

    def _take_in(self, scan: Scan, entries: int) -> int:
        end = partition_bounds(self._place, self.partitions)[1]
        taken = size = 0
        for stored_key, stored in scan(self._cursor, end):
            key, version = InternalKey(stored_key), EncodedVersion(stored)
            if n := self.n_of(key):
                self._new[n].change(self.leaf_of(key), item(key, version), 1)
            self._cursor = key + b"\0"
            taken += 1
            size += len(version)
            if taken >= entries or size >= _SLICE_BYTES:
                return entries
        self._finish()
        return taken

    def _finish(self) -> None:
        old = self._ready[self._place]
        if old is not None and not all(old[n].same(self._new[n]) for n in self.ns):
            self.corrected += 1
        self._ready[self._place] = self._new
        self._begin(self._place + 1)

    def _begin(self, partition: int) -> None:
        while self._only_missing and partition < self.partitions and self._ready[partition] is not None:
            partition += 1
        self._place = partition
        if self.building:
            self._new = self._empty()
            self._cursor = partition_bounds(partition, self.partitions)[0]


def _ns(state: ClusterState) -> tuple[tuple[int, ...], int, dict[bytes, int]]:
    """All numbers of replicas that there are, the usual one, and that of each bucket that is configured."""
    by_bucket = {bucket.name.encode(): bucket.n for bucket in state.buckets}
    return state.ns, state.replicas, by_bucket
