"""What each replica holds in the end, read from the disks of nodes that have stopped."""

from __future__ import annotations

from pathlib import Path

from kvstore.lsm.stopped import open_stopped
from kvstore.ring import DATA_KEYSPACE, ClusterState, partition_of, preference_list, split_data_key
from kvstore.server.data_directory import find_store
from kvstore.store import DiskFileSystem
from kvstore.versions import InternalKey

Replicas = dict[str, dict[str, dict[str, bytes]]]
"""By the primaries of some partitions (`n1,n2,n3`): what each of them holds, by `bucket/key`."""


def dump(data: Path) -> dict[bytes, bytes]:
    """All versions in a node's data directory, by internal key. Raises StorageError."""
    with open_stopped(DiskFileSystem(), str(find_store(data))) as store:
        return {key: value for key, value in store.scan() if key[:1] == DATA_KEYSPACE}


def replicas(dumps: dict[str, dict[bytes, bytes]], state: ClusterState, n: int) -> Replicas:
    """What the primaries of every key hold."""
    found: Replicas = {}
    for node, held in dumps.items():
        for key, version in held.items():
            token, bucket, name = split_data_key(InternalKey(key))
            primaries = preference_list(state.ring, partition_of(token, state.ring.partitions), n)
            group = found.setdefault(",".join(primaries), {primary: {} for primary in primaries})
            if node in group:
                group[node][f"{bucket}/{name.decode(errors='backslashreplace')}"] = version
    return found
