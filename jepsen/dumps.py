"""What each replica holds in the end, read from the disks of nodes that have stopped."""

from __future__ import annotations

from pathlib import Path

from kvstore.lsm import DiskFileSystem
from kvstore.lsm.stopped import open_stopped
from kvstore.ring import ClusterState, partition_of, preference_list, split_data_key
from kvstore.server.data_directory import find_store

Replicas = dict[str, dict[str, bytes | None]]
"""By `bucket/key`: each primary's canonical version, None where it has none."""


def dump(data: Path) -> dict[bytes, bytes]:
    """All versions in a node's data directory, by internal key. Raises StorageError."""
    with open_stopped(DiskFileSystem(), str(find_store(data))) as store:
        return {key: value for key, value in store.scan() if key[:1] == b"d"}


def replicas(dumps: dict[str, dict[bytes, bytes]], state: ClusterState, n: int) -> Replicas:
    """What the primaries of every key hold."""
    found: Replicas = {}
    for key in sorted(set().union(*dumps.values())):
        token, bucket, name = split_data_key(key)
        primaries = preference_list(state.ring, partition_of(token, state.ring.partitions), n)
        found[f"{bucket}/{name.decode(errors='backslashreplace')}"] = {
            node: dumps[node].get(key) for node in primaries
        }
    return found
