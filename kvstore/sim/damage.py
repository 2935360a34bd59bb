"""Damage to disks: bits that flip, logs that cannot be read, disks that are lost; and how much of it is fair.

The promise is that an acknowledged write is on the disks of W replicas, so what is on one alone may be
lost with it. The simulator damages one disk at a time, the next one when all replicas are whole again,
and only when what is on it is durable elsewhere: a bit of a table flips if one other node has each
version, for the fence keeps a quorum of this replica and a stale one from being believed. A log or a
whole disk is lost only if *every* other primary has it: an empty replica does not know that it has
forgotten, and R=2 of an empty one and a stale one would not see a write on the third. Nor does it start
before every read has ended that has an answer from before the others were whole. The operator of a real
cluster waits likewise (docs/anti-entropy.md).
"""

from __future__ import annotations

from collections.abc import Iterator

from kvstore.config import Conflict
from kvstore.errors import Corruption, UnsupportedFormat
from kvstore.lsm.sstable import MAGIC
from kvstore.quorum.hints import HINT_KEYSPACE, split_hint_key
from kvstore.ring import DATA_KEYSPACE, split_data_key
from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.host import Host
from kvstore.versions import (
    BucketName,
    EncodedVersion,
    InternalKey,
    UserKey,
    decode_version,
    reconcile,
    reconcile_lww,
)

_OVERDUE = 5.0
"""Seconds after which the operator reads all blocks of a damaged disk: nobody else may have."""

_LONGEST_READ = 6.0
"""Seconds, by the slowest clock, after which no read is under way that had begun when a disk was lost."""

_SMALLEST_BLOCK = 50
"""Bytes: less than a block of a table has."""


class Damage:
    """What is damaged now, and whether more may be."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._host: Host | None = None
        self._path = ""
        self._since = 0.0

    # whether it is fair

    def may_flip(self, host: Host) -> bool:
        """Whether a table of this host may be damaged: one other node has each version on it."""
        return self._all_whole() and self._copied(host, everywhere=False)

    def may_lose(self, host: Host) -> bool:
        """Whether this host may lose its disk: every other primary has each version on it."""
        return self._all_whole() and self._copied(host, everywhere=True)

    def _all_whole(self) -> bool:
        host = self._host
        if host is None:
            return True
        if not host.up:
            return False
        if self._path:
            whole = self._path not in (f"data/{name}" for name in host.machine.disk.list("data"))
            if not whole and self._cluster.scheduler.now - self._since > _OVERDUE:
                whole = not host.engine.tables.scrub()  # a filter that is damaged only makes lookups slower
        else:
            whole = self._caught_up(host)
        if whole and not host.engine.quarantine.fences:
            self._host = None
        return self._host is None

    def _copied(self, host: Host, everywhere: bool) -> bool:
        hosts = self._cluster.hosts
        others = [other for other in hosts.values() if other is not host and other.up and _all_durable(other)]
        if not host.up or not others:
            return False
        try:
            for key, version in _versions(host, DATA_KEYSPACE):
                primaries = set(self._cluster.replicas(*_place(key))) - {host.name}
                having = {o.name for o in others if o.name in primaries and self._has(o, key, version)}
                if not having or (everywhere and not primaries <= having):
                    return False
            for hint, version in _versions(host, HINT_KEYSPACE):
                _, key = split_hint_key(hint)
                primaries = set(self._cluster.replicas(*_place(key)))
                if not any(o.name in primaries and self._has(o, key, version) for o in others):
                    return False
        except Corruption:
            return False
        return True

    def _has(self, host: Host, key: bytes, version: bytes) -> bool:
        mine = host.engine.get(key)
        if not mine or mine == version:
            return mine == version
        lww = self._cluster.state.bucket(_place(key)[0]).conflict is Conflict.LWW
        known = decode_version(EncodedVersion(mine))
        return (reconcile_lww if lww else reconcile)(known, decode_version(EncodedVersion(version))) == known

    def _caught_up(self, host: Host) -> bool:
        """Whether a host that lost its disk has all that the others have."""
        try:
            return all(
                self._has(host, key, version)
                for other in self._cluster.hosts.values()
                if other.up and other is not host
                for key, version in _versions(other, DATA_KEYSPACE)
                if host.name in self._cluster.replicas(*_place(key))
            )
        except Corruption:
            return False

    # doing it

    def flip(self, host: Host, path: str, place: float, bit: int) -> None:
        """Flip a bit of a table; `place` is the share of the file before it.

        Not of its last bytes, which say that it is a table of ours: on another format no node starts.
        """
        self._note(host, path)
        host.machine.disk.corrupt(path, int((host.machine.disk.size(path) - len(MAGIC)) * place), 1 << bit)

    def flip_throughout(self, host: Host, path: str) -> None:
        """Flip a bit in each block of a table."""
        self._note(host, path)
        for place in range(0, host.machine.disk.size(path) - len(MAGIC), _SMALLEST_BLOCK):
            host.machine.disk.corrupt(path, place, 1)

    def flip_in_log(self, host: Host, path: str, place: float, bit: int) -> None:
        """Flip a bit of a log or manifest of a host that is down."""
        self._note(host, "")
        host.machine.disk.corrupt(path, int(host.machine.disk.size(path) * place), 1 << bit)

    def wipe(self, host: Host) -> None:
        """Replace the disk of a host that is down by an empty one."""
        self._note(host, "")
        self._empty(host)

    def start(self, host: Host) -> None:
        """Start a host with a damaged log; if it refuses to, with an empty disk, as an operator would."""
        self._cluster.restart(host.name)
        if not host.up and isinstance(host.ended_by, (Corruption, UnsupportedFormat)):
            self._empty(host)
            self._cluster.restart(host.name)

    def _empty(self, host: Host) -> None:
        """A read under way may have an answer from before all others had what was on this disk."""
        host.wipe()
        host.kept_down_until = self._cluster.scheduler.now + _LONGEST_READ

    def _note(self, host: Host, path: str) -> None:
        self._host, self._path, self._since = host, path, self._cluster.scheduler.now


def _all_durable(host: Host) -> bool:
    return host.engine.durable_lsn == host.engine.last_lsn


def _versions(host: Host, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    return host.engine.scan_prefix(prefix)


def _place(key: bytes) -> tuple[BucketName, UserKey]:
    _, bucket, name = split_data_key(InternalKey(key))
    return bucket, name
