"""What the leaves of a Merkle tree hold, as replicas tell each other: 8 bytes for a key with its version."""

from __future__ import annotations

from collections.abc import Iterator

from kvstore.errors import Corruption
from kvstore.lsm.reading import Scan
from kvstore.protocol.peer import KeyVersion, RangeDifference, RangeItems
from kvstore.quorum.background.merkle import Trees, item
from kvstore.versions import EncodedVersion, InternalKey, check_version

ITEM_BYTES = 8


def difference(trees: Trees, scan: Scan, asked: RangeItems, most_bytes: int) -> RangeDifference:
    """The answer to a peer's `RangeItems`: no further version once there are `most_bytes` of them."""
    theirs = asked.items
    missing = {theirs[i : i + ITEM_BYTES]: i // ITEM_BYTES for i in range(0, len(theirs), ITEM_BYTES)}
    versions: list[KeyVersion] = []
    size = 0
    for key, version in held_in(
        trees, scan, asked.partition, asked.n, asked.leaves, asked.after, asked.until
    ):
        if missing.pop(packed_item(key, version), None) is not None:
            continue
        if size >= most_bytes:
            return RangeDifference(asked.number, tuple(versions), (), key)
        if not can_be_sent(version):
            continue
        versions.append(KeyVersion(key, version))
        size += len(key) + len(version)
    return RangeDifference(asked.number, tuple(versions), tuple(sorted(missing.values())), b"")


def can_be_sent(version: EncodedVersion) -> bool:
    """Whether another node would take it: an earlier kvstore may have stored what a wrong peer had sent."""
    try:
        check_version(version)
    except Corruption:
        return False
    return True


def held_in(
    trees: Trees, scan: Scan, partition: int, n: int, leaves: bytes, after: bytes, until: bytes
) -> Iterator[tuple[InternalKey, EncodedVersion]]:
    """What these leaves hold, in order, from `after` up to and without `until` (empty: no bound)."""
    for first, last in _runs(leaves):
        start = max(after, trees.leaf_bounds(partition, first)[0])
        end = trees.leaf_bounds(partition, last)[1]
        end = min(end, until) if until else end
        if start < end:
            entries = ((InternalKey(key), EncodedVersion(version)) for key, version in scan(start, end))
            yield from ((key, version) for key, version in entries if trees.n_of(key) == n)


def packed_item(key: InternalKey, version: EncodedVersion) -> bytes:
    """An item as it travels."""
    return item(key, version).to_bytes(ITEM_BYTES, "big", signed=True)


def _runs(leaves: bytes) -> Iterator[tuple[int, int]]:
    """First and last of each run of neighbours."""
    first = last = -1
    for leaf in leaves:
        if leaf != last + 1 or first < 0:
            if first >= 0:
                yield first, last
            first = leaf
        last = leaf
    if first >= 0:
        yield first, last
