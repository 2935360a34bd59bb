"""Writing the records of a file into a bucket, so that doing it again changes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Literal

from kvstore.client.errors import PartialFailure
from kvstore.client.results import Result, Stored
from kvstore.client.synchronous import Bucket
from kvstore.client.transfer.duplicates import KeysOfFile
from kvstore.client.transfer.records import LIMITS, BadLine, Held, Problems, Record, held, named
from kvstore.config import MIB
from kvstore.errors import InvalidRequest, KVError, NoNodeAvailable, TooManySiblings, VersionTooLarge

OnDuplicate = Literal["last", "first", "stop"]
"""Which of two lines with one key is stored."""

_BATCH = 500
_BATCH_BYTES = 4 * MIB
_PAUSE = 0.2
_THREADS = 16
_MAX_TTL = 2**32 - 1
_SAME_EXPIRY_MS = 2000
"""A TTL is given in whole seconds, and counts from when the coordinator gets it."""
_OF_THE_LINE = {"key", "value", "content_type"}
"""Fields that a cluster may refuse in one line and take in the next."""

Outcomes = tuple[dict[bytes, Stored], dict[bytes, KVError]]
"""Of several writes: what was stored, and what failed."""

Acknowledged = Callable[[Record], None]
"""Called with each record that has been acknowledged, or was there already."""


@dataclass(slots=True)
class ImportReport:
    """Counts of an import, up to date at any time.

    `imported` and `unchanged` are keys, however many lines of the file they have; but a line that is equal to
    an earlier one counts as unchanged, too. `expired` are records whose
    values' time was over, `bad` the lines that could not be imported, `duplicates` those that had the key of
    an earlier line and another value.
    """

    imported: int = 0
    unchanged: int = 0
    retried: int = 0
    expired: int = 0
    bad: Problems = field(default_factory=Problems)
    duplicates: Problems = field(default_factory=Problems)


class Importer:
    """Writes records over what it read of their keys.

    A write whose outcome is unknown is read again before it is tried again, for up to `patience` seconds.
    """

    def __init__(self, bucket: Bucket, patience: float, on_stored: Acknowledged | None = None) -> None:
        self.report = ImportReport()
        self._bucket = bucket
        self._patience = patience
        self._on_stored = on_stored or _nobody_asks

    def run(
        self, records: Iterable[Record | BadLine], skip_bad: bool = False, on_duplicate: OnDuplicate = "last"
    ) -> ImportReport:
        """Import all records; raises BadLine for the first bad one unless they are to be skipped.

        Those before it are stored then. Raises the error of a write that failed for too long.
        """
        batch: dict[bytes, Record] = {}
        size = 0
        with closing(KeysOfFile()) as keys:
            for found in records:
                try:
                    record = self._accepted(found, keys, on_duplicate)
                except BadLine as error:
                    self.report.bad.add(error)
                    if skip_bad:
                        continue
                    self._store(batch, skip_bad)
                    raise
                if record is None:
                    continue
                if record.key in batch or len(batch) >= _BATCH or size >= _BATCH_BYTES:
                    self._store(batch, skip_bad)
                    batch, size = {}, 0
                batch[record.key] = record
                size += record.size
            self._store(batch, skip_bad)
        return self.report

    def _accepted(
        self, found: Record | BadLine, keys: KeysOfFile, on_duplicate: OnDuplicate
    ) -> Record | None:
        """The record, None for one that is left out as a duplicate; raises BadLine."""
        if isinstance(found, BadLine):
            raise found
        earlier = keys.earlier(found, keep=on_duplicate == "first")
        if earlier is None:
            return found
        what = f"has the key {named(found.key)} of {found.unit} {earlier}"
        match on_duplicate:
            case "stop":
                raise found.bad(what)
            case "first":
                self.report.duplicates.add(found.bad(f"{what}, and is left out"))
                return None
            case "last":
                self.report.duplicates.add(found.bad(f"{what}, and takes its place"))
                return replace(found, again=True)

    def _store(self, batch: dict[bytes, Record], skip_bad: bool) -> None:
        deadline = time.monotonic() + self._patience
        refused: list[BadLine] = []
        left = batch
        while left:
            left, error = self._attempt(left, refused)
            if error is not None:
                if isinstance(error, InvalidRequest) or time.monotonic() > deadline:
                    raise error
                self.report.retried += len(left)
                time.sleep(_PAUSE)
        for bad in refused:
            self.report.bad.add(bad)
        if refused and not skip_bad:
            raise refused[0]

    def _attempt(
        self, batch: dict[bytes, Record], refused: list[BadLine]
    ) -> tuple[dict[bytes, Record], KVError | None]:
        """Read and write a batch once; what is left to do, and why."""
        try:
            seen = self._bucket.get_many(batch)
        except PartialFailure as error:
            return batch, next(iter(error.failed.values()))
        except NoNodeAvailable as error:
            return batch, error
        changed: dict[bytes, Record] = {}
        for key, record in batch.items():
            live = _without_expired(record)
            if not live.siblings:
                self.report.expired += 1
            elif (count := len(live.siblings)) > LIMITS.siblings:  # before the first of them is written
                refused.append(record.bad(f"has {count} siblings, the limit is {LIMITS.siblings}"))
            elif _holds(seen[key], live):
                self.report.unchanged += not record.again
                self._on_stored(record)
            else:
                changed[key] = live
        return self._write(changed, seen, refused)

    def _write(
        self, batch: dict[bytes, Record], seen: Mapping[bytes, Result], refused: list[BadLine]
    ) -> tuple[dict[bytes, Record], KVError | None]:
        """Write the siblings of all keys, one of each at a time.

        All of a key with the context of the one read: so none of them replaces another.
        """
        failed: dict[bytes, KVError] = {}
        stored: dict[bytes, Stored] = {}
        for turn in range(max((len(record.siblings) for record in batch.values()), default=0)):
            puts = {
                key: record.siblings[turn]
                for key, record in batch.items()
                if turn < len(record.siblings) and key not in failed
            }
            for done, errors in self._put(puts, {key: seen[key].context for key in puts}):
                stored |= done
                failed |= errors
        lost = self._lost_siblings(batch, stored, failed)
        left: dict[bytes, Record] = {}
        for key, record in batch.items():
            if (problem := _refusal(record, failed.get(key)) or lost.get(key)) is not None:
                refused.append(problem)
            elif key in failed:
                left[key] = record
            else:
                self.report.imported += not record.again
                self._on_stored(record)
        return left, next((failed[key] for key in left), None)

    def _lost_siblings(
        self, batch: dict[bytes, Record], stored: Mapping[bytes, Stored], failed: dict[bytes, KVError]
    ) -> dict[bytes, BadLine]:
        """The keys that hold fewer values than they should, as in an lww bucket.

        What the last write says is no proof of that: a coordinator that was down when the others were written
        counts its own alone. Keys that cannot be read now are added to `failed`.
        """
        doubtful = [
            key
            for key, record in batch.items()
            if key not in failed and stored[key].siblings < len(record.siblings)
        ]
        try:
            found = self._bucket.get_many(doubtful) if doubtful else {}
        except (PartialFailure, NoNodeAvailable) as error:
            first = next(iter(error.failed.values())) if isinstance(error, PartialFailure) else error
            failed.update(dict.fromkeys(doubtful, first))
            return {}
        lost: dict[bytes, BadLine] = {}
        for key, got in found.items():
            had, kept = len(batch[key].siblings), len(got.siblings)
            if kept < had:
                lost[key] = batch[key].bad(f"has {had} siblings, and the bucket has kept {kept} of them")
        return lost

    def _put(self, puts: Mapping[bytes, Held], contexts: Mapping[bytes, bytes]) -> list[Outcomes]:
        """Write a value of each key; what was stored and what failed, in parts.

        A call for each content type and time to live, since these are of a call and not of a key.
        """
        groups: dict[tuple[str, int], list[bytes]] = {}
        for key, value in puts.items():
            groups.setdefault(_options(value), []).append(key)

        def put(options: tuple[str, int]) -> Outcomes:
            values = [(key, puts[key].value) for key in groups[options]]
            return self._put_group(values, contexts, *options)

        if len(groups) <= 1:
            return list(map(put, groups))
        with ThreadPoolExecutor(_THREADS) as threads:
            return list(threads.map(put, groups))

    def _put_group(
        self,
        values: Sequence[tuple[bytes, bytes]],
        contexts: Mapping[bytes, bytes],
        content_type: str,
        ttl: int,
    ) -> Outcomes:
        try:
            done = self._bucket.put_many(
                values, contexts=contexts, content_type=content_type, ttl=ttl or None
            )
        except PartialFailure as error:
            succeeded = {k: v for k, v in error.succeeded.items() if isinstance(v, Stored)}
            return succeeded, error.failed  # type: ignore[return-value]
        except NoNodeAvailable as error:
            return {}, {key: error for key, _ in values}
        return done, {}


def _refusal(record: Record, error: KVError | None) -> BadLine | None:
    """Why no cluster will ever take a record as it is; None if one does, or may."""
    of_the_line = isinstance(error, InvalidRequest) and error.field in _OF_THE_LINE
    if of_the_line or isinstance(error, TooManySiblings | VersionTooLarge):
        return record.bad(str(error))
    return None


def _without_expired(record: Record) -> Record:
    """The record with those of its siblings that live on."""
    now = time.time() * 1000
    live = tuple(each for each in record.siblings if not each.expiry or each.expiry > now)
    return record if len(live) == len(record.siblings) else replace(record, siblings=live)


def _options(value: Held) -> tuple[str, int]:
    """Its content type, and the seconds that it has left to live, never fewer; 0: as the bucket says."""
    if not value.expiry:
        return value.content_type, 0
    left = math.ceil(value.expiry / 1000 - time.time())
    return value.content_type, min(max(left, 1), _MAX_TTL)


def _holds(result: Result, record: Record) -> bool:
    """Whether a key has these values, and no other."""
    there, wanted = (sorted(each, key=_order) for each in (map(held, result.siblings), record.siblings))
    return len(there) == len(wanted) and all(map(_same, there, wanted))


def _order(value: Held) -> tuple[bytes, str, int]:
    return value.value, value.content_type, value.expiry


def _same(one: Held, other: Held) -> bool:
    return (
        one.value == other.value
        and one.content_type == other.content_type
        and bool(one.expiry) == bool(other.expiry)
        and abs(one.expiry - other.expiry) <= _SAME_EXPIRY_MS
    )


def _nobody_asks(record: Record) -> None:
    """For an import that nobody follows key by key."""
