"""One node's own copy of the data: reading a version, reconciling another one into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from kvstore.config import BucketSettings, Conflict
from kvstore.errors import InvalidRequest, VersionTooLarge
from kvstore.hlc import wall_time
from kvstore.lsm import Engine
from kvstore.protocol.internal_key import split_data_key
from kvstore.quorum.counters import Counters
from kvstore.versions import (
    NO_VERSION,
    BucketName,
    EncodedVersion,
    InternalKey,
    Version,
    decode_version,
    discarded,
    encode_version,
    reconcile,
    reconcile_lww,
)

_FAR_AHEAD = 86_400_000
"""Milliseconds, a day: clocks that are wrong by less decide, as an lww bucket has it."""

Batch = Sequence[tuple[bytes, bytes | None]]
Changes = dict[InternalKey, tuple[EncodedVersion, EncodedVersion]]
"""By key what is stored (empty: nothing), and the version that is to be written over it."""


class Replica:
    """Versions by internal key in the engine; knows which of them are not durable yet, keeps their trees."""

    __slots__ = ("_bucket", "_counters", "_engine", "_get", "_unsynced", "_update", "largest", "on_distrust")

    def __init__(
        self,
        engine: Engine,
        bucket: Callable[[BucketName], BucketSettings],
        update: Callable[[InternalKey, EncodedVersion, EncodedVersion], None],
        counters: Counters,
    ) -> None:
        """`update` takes each change into the Merkle trees: a key, what was stored, and what is."""
        self._counters = counters
        self._engine = engine
        self._get = cast("Callable[[InternalKey], EncodedVersion | None]", engine.get)
        self._bucket = bucket
        self.largest = engine.options.value_bytes
        """The most bytes that an encoded version may have."""
        self._update = update
        self.on_distrust: Callable[[InternalKey, Exception], None] = _ignore
        """Called when the trees of a key are no longer known to be those of the disk, with the reason."""
        self._unsynced: dict[bytes, int] = {}

    def read(self, key: InternalKey) -> EncodedVersion:
        """The encoded version of `key`, empty when there is none; raises Corruption."""
        return self._get(key) or NO_VERSION

    @property
    def last_lsn(self) -> int:
        """The LSN of the last write."""
        return self._engine.last_lsn

    def unsynced(self, key: bytes) -> int:
        """The LSN that must be durable before the version of `key` may be shown; 0: it is."""
        return self._unsynced.get(key, 0)

    def apply(self, key: InternalKey, incoming: EncodedVersion) -> int:
        """Reconcile `incoming` into the stored version; returns the LSN that makes it durable.

        Raises StorageFull when nothing could be written, Corruption when the stored version is bad,
        VersionTooLarge.
        """
        changes: Changes = {}
        lsn = self.prepare(key, incoming, changes)
        return self.replace(changes) if changes else lsn

    def prepare(self, key: InternalKey, incoming: EncodedVersion, changes: Changes, wall: int = 0) -> int:
        """Add to `changes` what must be written to have `incoming` reconciled into the stored version.

        If that is nothing, returns the LSN that makes the stored version durable. Raises Corruption,
        VersionTooLarge; at the time `wall` (0: nobody wants to know) InvalidRequest for a new value that is
        lost to a time far ahead.
        """
        planned = changes.get(key)
        if planned is not None:
            stored, current = planned
        else:
            stored = current = self.read(key)
        result = self.combine(key, current, incoming, to_be_stored=True, wall=wall) if current else incoming
        if result == current:
            return 0 if planned else self.unsynced(key)
        if len(result) > self.largest:
            self._counters.oversized += 1
            raise VersionTooLarge(len(result), self.largest)
        changes[key] = stored, result
        return 0

    def combine(
        self,
        key: InternalKey,
        a: EncodedVersion,
        b: EncodedVersion,
        to_be_stored: bool = False,
        wall: int = 0,
    ) -> EncodedVersion:
        """Two encoded versions of `key` reconciled by the rule of its bucket.

        What an lww bucket loses by it is counted when the result is `to_be_stored`. For `wall` see `prepare`.
        """
        if a == b or not b:
            return a
        if not a:
            return b
        _, bucket, _ = split_data_key(key)
        one, other = decode_version(a), decode_version(b)
        if self._bucket(bucket).conflict is not Conflict.LWW:
            return encode_version(reconcile(one, other))
        result = reconcile_lww(one, other)
        if wall:
            _check_not_swallowed(other, result, wall)
        if to_be_stored:
            self._counters.lww_discarded += discarded(one, other, result)
        return encode_version(result)

    def replace(self, changes: Changes, others: Batch = ()) -> int:
        """By key, write something new (empty: nothing) over what is stored, in one batch with `others`.

        The only way to change a version: the trees depend on it. `others` are no versions.
        """
        lsn = self.write([*[(key, new or None) for key, (_, new) in changes.items()], *others])
        for key, (old, new) in changes.items():
            try:
                self._update(key, old, new)
            except Exception as error:  # noqa: BLE001  (a defect: the other keys of the batch go on)
                # trees that cannot follow must prove nothing
                self._counters.trees_distrusted += 1
                self.on_distrust(key, error)
        return lsn

    def write(self, batch: Batch) -> int:
        """Append hints and the node's own records; returns the LSN that an acknowledgement must wait for."""
        lsn = self._engine.write(batch)
        if not self._engine.waits_for_disk:
            return lsn
        for key, _ in batch:
            # popped first, so that the dict stays in order of LSN
            self._unsynced.pop(key, None)
            self._unsynced[key] = lsn
        return lsn

    def on_durable(self, lsn: int) -> None:
        """All writes up to `lsn` are durable."""
        unsynced = self._unsynced
        done = []
        for key, written in unsynced.items():
            if written > lsn:
                break
            done.append(key)
        for key in done:
            del unsynced[key]


def _check_not_swallowed(new: Version, result: Version, wall: int) -> None:
    """A write that a wrong clock has overtaken must not be acknowledged: its client would never see it."""
    for kept in result.siblings:
        if kept not in new.siblings and wall_time(kept.time) > wall + _FAR_AHEAD:
            raise InvalidRequest("time", "a value that was stamped far in the future would outlast this one")


def _ignore(key: InternalKey, error: Exception) -> None:
    """Until a callback is set."""
