"""Reading a whole bucket, key by key, while nodes come and go."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from kvstore.client.errors import PartialFailure
from kvstore.client.results import Result
from kvstore.client.synchronous import Bucket
from kvstore.client.transfer.lines import ExportWriter
from kvstore.client.transfer.objects import is_too_deep, object_line
from kvstore.client.transfer.records import Problems, named, record_of
from kvstore.config import MIB
from kvstore.errors import KVError, NoNodeAvailable

_BATCH = 250
_FIRST_BATCH = 8
_AHEAD = 3
"""Batches that are read at the same time: nodes go on while their answers are written, and all of them do."""
_BATCH_BYTES = 4 * MIB
_PAUSE = 0.2


@dataclass(slots=True)
class ExportReport:
    """Counts of an export, up to date at any time; `left_out` are keys that are not in it, and why.

    `too_deep` are values that are in it, and are JSON that readers give up on.
    """

    exported: int = 0
    retried: int = 0
    left_out: Problems = field(default_factory=Problems)
    too_deep: Problems = field(default_factory=Problems)


class Exporter:
    """Reads all keys of a bucket. What fails is tried again for up to `patience` seconds, then raised.

    A key that cannot be read for a reason of its own is reported, and left out.
    """

    def __init__(self, bucket: Bucket, patience: float) -> None:
        self.report = ExportReport()
        self._bucket = bucket
        self._patience = patience
        self._batch = _FIRST_BATCH
        self._lock = threading.Lock()

    def lines(self) -> Iterator[bytes]:
        """An export that `ExportReader` reads: every key exactly."""
        writer = ExportWriter()
        yield writer.header(self._bucket.name)
        for result in self._results():
            self.report.exported += 1
            if any(is_too_deep(sibling.value) for sibling in result.siblings):
                self.report.too_deep.add(
                    f"{named(result.key)} is nested too deeply for others to read as JSON"
                )
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
        threads = ThreadPoolExecutor(_AHEAD)
        reading: deque[Future[list[Result]]] = deque()
        try:
            for batch in self._batches():
                reading.append(threads.submit(self._read, batch))
                if len(reading) == _AHEAD:
                    yield from reading.popleft().result()
            while reading:
                yield from reading.popleft().result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _batches(self) -> Iterator[list[bytes]]:
        """All keys, as many at a time as are read at once."""
        keys: list[bytes] = []
        for partition in range(self._bucket.partitions()):
            keys += self._listed(partition)
            while len(keys) >= (size := self._batch):
                yield keys[:size]
                del keys[:size]
        while keys:
            size = self._batch
            yield keys[:size]
            del keys[:size]

    def _listed(self, partition: int) -> list[bytes]:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return self._bucket.scan_partition(partition)
            except KVError as error:
                self._wait_after(error, deadline)

    def _read(self, keys: list[bytes]) -> list[Result]:
        """What these keys hold, but for those that were deleted since they were listed."""
        found: list[Result] = []
        deadline = time.monotonic() + self._patience
        while keys:
            batch = keys[: self._batch]
            try:
                results = self._get(batch)
            except KVError as error:
                self._batch = max(1, len(batch) // 2)  # it may have been too much for the time it had
                self._wait_after(error, deadline)
                continue
            deadline = time.monotonic() + self._patience
            keys = keys[len(batch) :]
            sizes = [sum(len(sibling.value) for sibling in result.siblings) for result in results]
            fitting = _BATCH_BYTES // max(max(sizes, default=0), 1)
            # how large the next ones are shows when they are there: so it grows by steps, and shrinks at once
            self._batch = max(1, min(fitting, 2 * self._batch, _BATCH))
            found += [result for result in results if result.siblings]
        return found

    def _get(self, keys: list[bytes]) -> list[Result]:
        """Read keys; those that never can be read are reported. Raises an error that may pass."""
        try:
            return list(self._bucket.get_many(keys).values())
        except PartialFailure as error:
            passing = [each for each in error.failed.values() if _may_pass(each)]
            if passing:
                raise passing[0] from None
            with self._lock:
                for key, reason in error.failed.items():
                    self.report.left_out.add(f"{_named(key)} cannot be read: {reason}")
            return [result for result in error.succeeded.values() if isinstance(result, Result)]

    def _wait_after(self, error: KVError, deadline: float) -> None:
        """Pause before the next attempt; raises the error when there shall be none."""
        if not _may_pass(error) or time.monotonic() > deadline:
            raise error
        with self._lock:
            self.report.retried += 1
        time.sleep(_PAUSE)


def _may_pass(error: KVError) -> bool:
    """Whether trying again has a chance: of a read, whatever is known of its outcome."""
    return error.retryable or isinstance(error, NoNodeAvailable)


def _named(key: str | bytes) -> str:
    return named(key.encode() if isinstance(key, str) else key)
