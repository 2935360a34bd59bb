"""What must hold of all disks together, whatever clients have seen."""

from __future__ import annotations

from collections.abc import Iterator

from kvstore.ring import DATA_KEYSPACE, split_data_key
from kvstore.sim.checker import Violation
from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.history import History
from kvstore.versions import (
    BucketName,
    Dot,
    EncodedVersion,
    InternalKey,
    Sibling,
    UserKey,
    covers,
    decode_version,
)


def check_disks(cluster: SimulatedCluster, history: History) -> int:
    """A dot names one write, a stored value was written, a version covers its own siblings.

    Returns how many siblings were looked at; raises Violation.
    """
    written = {write.value: write.may_exist for write in history.writes}
    meaning: dict[Dot, tuple[BucketName, UserKey, Sibling]] = {}
    checked = 0
    for node, bucket, key, sibling in _siblings(cluster):
        checked += 1
        if sibling.value is not None and not written.get(sibling.value):
            raise Violation(f"{node} stores {sibling.value!r}, which was never written, or not applied")
        mine = (bucket, key, sibling)
        if meaning.setdefault(sibling.dot, mine) != mine:
            raise Violation(f"{sibling.dot} names two writes: {meaning[sibling.dot]} and on {node} {mine}")
    return checked


def _siblings(cluster: SimulatedCluster) -> Iterator[tuple[str, BucketName, UserKey, Sibling]]:
    for node, host in cluster.hosts.items():
        for internal, encoded in host.engine.scan_prefix(DATA_KEYSPACE):
            _, bucket, key = split_data_key(InternalKey(internal))
            version = decode_version(EncodedVersion(encoded))
            for sibling in version.siblings:
                if not covers(version.context, sibling.dot):
                    raise Violation(f"{node}: {bucket}/{key!r} has a sibling its context does not cover")
                yield node, bucket, key, sibling
