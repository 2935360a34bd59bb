"""Reading a whole bucket, key by key, while nodes come and go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from kvstore.client.errors import PartialFailure
from kvstore.client.results import Result
from kvstore.client.synchronous import Bucket
from kvstore.client.transfer.lines import ExportWriter
from kvstore.client.transfer.objects import object_line
from kvstore.client.transfer.records import Problems, named, record_of
from kvstore.config import MIB
from kvstore.errors import KVError, NoNodeAvailable

_BATCH = 500
_FIRST_BATCH = 8
_BATCH_BYTES = 4 * MIB
_PAUSE = 0.2


@dataclass(slots=True)
class ExportReport:
    """Counts of an export, up to date at any time; `left_out` are keys that are not in it, and why."""

    exported: int = 0
    retried: int = 0
    left_out: Problems = field(default_factory=Problems)


class Exporter:
    """Reads all keys of a bucket. What fails is tried again for up to `patience` seconds, then raised.

    A key that cannot be read for a reason of its own is reported, and left out.
    """

    def __init__(self, bucket: Bucket, patience: float) -> None:
        self.report = ExportReport()
        self._bucket = bucket
        self._patience = patience
        self._batch = _FIRST_BATCH

    def lines(self) -> Iterator[bytes]:
        """An export that `ExportReader` reads: every key exactly."""
        writer = ExportWriter()
        yield writer.header(self._bucket.name)
        for result in self._results():
            self.report.exported += 1
            yield writer.line(record_of(result))
        yield writer.summary(self.report.left_out.count)

    def objects(self) -> Iterator[bytes]:
        """The value of each key that has one JSON object, as a line; other keys are left out."""
        for result in self._results():
            line = object_line(result)
            if line is None:
                self.report.left_out.add(f"{named(result.key)} is no single JSON object")
            else:
                self.report.exported += 1
                yield line

    def _results(self) -> Iterator[Result]:
        """What every key holds that has a value."""
        keys: list[bytes] = []
        for partition in range(self._bucket.partitions()):
            keys += self._listed(partition)
            while len(keys) >= self._batch:
                yield from self._read(keys)
        while keys:
            yield from self._read(keys)

    def _listed(self, partition: int) -> list[bytes]:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return self._bucket.scan_partition(partition)
            except KVError as error:
                self._wait_after(error, deadline)

    def _read(self, keys: list[bytes]) -> list[Result]:
        """What the first of these keys hold, which are taken off the list."""
        deadline = time.monotonic() + self._patience
        while True:
            batch = keys[: self._batch]
            try:
                results = self._get(batch)
                break
            except KVError as error:
                self._wait_after(error, deadline)
                self._batch = max(1, self._batch // 2)  # it may have been too much for the time it had
        del keys[: len(batch)]
        sizes = [sum(len(sibling.value) for sibling in result.siblings) for result in results]
        fitting = _BATCH_BYTES // max(max(sizes, default=0), 1)
        # how large the next ones are shows when they are there: so it grows by steps, and shrinks at once
        self._batch = max(1, min(fitting, 2 * self._batch, _BATCH))
        return [result for result in results if result.siblings]  # others were deleted since they were listed

    def _get(self, keys: list[bytes]) -> list[Result]:
        """Read keys; those that never can be read are reported. Raises an error that may pass."""
        try:
            return list(self._bucket.get_many(keys).values())
        except PartialFailure as error:
            passing = [each for each in error.failed.values() if _may_pass(each)]
            if passing:
                raise passing[0] from None
            for key, reason in error.failed.items():
                self.report.left_out.add(f"{_named(key)} cannot be read: {reason}")
            return [result for result in error.succeeded.values() if isinstance(result, Result)]

    def _wait_after(self, error: KVError, deadline: float) -> None:
        """Pause before the next attempt; raises the error when there shall be none."""
        if not _may_pass(error) or time.monotonic() > deadline:
            raise error
        self.report.retried += 1
        time.sleep(_PAUSE)


def _may_pass(error: KVError) -> bool:
    """Whether trying again has a chance: of a read, whatever is known of its outcome."""
    return error.retryable or isinstance(error, NoNodeAvailable)


def _named(key: str | bytes) -> str:
    return named(key.encode() if isinstance(key, str) else key)
