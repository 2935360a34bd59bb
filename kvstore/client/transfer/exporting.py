"""Reading a whole bucket, key by key, while nodes come and go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from kvstore.client.synchronous import Bucket
from kvstore.client.transfer.lines import ExportWriter
from kvstore.client.transfer.objects import is_too_deep, object_line
from kvstore.client.transfer.records import Problems, Record, named, record_of
from kvstore.errors import KVError, NoNodeAvailable
from kvstore.protocol.scan import Scanned

T = TypeVar("T")

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

    def lines(self) -> Iterator[bytes]:
        """An export that `ExportReader` reads: every key exactly."""
        writer = ExportWriter()
        yield writer.header(self._bucket.name)
        for record in self._records():
            self.report.exported += 1
            if any(is_too_deep(held.value) for held in record.siblings):
                self.report.too_deep.add(
                    f"{named(record.key)} is nested too deeply for others to read as JSON"
                )
            yield writer.line(record)
        yield writer.summary(self.report.left_out.count)

    def objects(self) -> Iterator[bytes]:
        """The value of each key that has one JSON object, as a line; other keys are left out."""
        for record in self._records():
            line = object_line(record)
            if line is None:
                self.report.left_out.add(f"{named(record.key)} is no single JSON object")
            else:
                self.report.exported += 1
                yield line

    def _records(self) -> Iterator[Record]:
        """Every key that has a value, with what it holds. The next page is fetched while one is written."""
        thread = ThreadPoolExecutor(1)
        try:
            page = self._page(b"")
            while page.next:
                following = thread.submit(self._page, page.next)
                yield from self._of_page(page)
                page = following.result()
            yield from self._of_page(page)
        finally:
            thread.shutdown(wait=False, cancel_futures=True)

    def _of_page(self, page: Scanned) -> Iterator[Record]:
        for each in page.keys:
            record = self._large(each.key) if each.large else record_of(each.key, each.siblings)
            if record is not None:
                yield record

    def _page(self, cursor: bytes) -> Scanned:
        return self._patiently(lambda: self._bucket.scan_page(cursor, values=True))

    def _large(self, key: bytes) -> Record | None:
        """A key whose values are too large for a page; None if they are gone, or cannot be read at all."""
        try:
            result = self._patiently(lambda: self._bucket.get(key))
        except KVError as error:
            if _may_pass(error):
                raise
            self.report.left_out.add(f"{named(key)} cannot be read: {error}")
            return None
        return record_of(key, result.siblings) if result.siblings else None

    def _patiently(self, ask: Callable[[], T]) -> T:
        """What nodes answer; an error that may pass is raised after the patience."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return ask()
            except KVError as error:
                if not _may_pass(error) or time.monotonic() > deadline:
                    raise
            self.report.retried += 1
            time.sleep(_PAUSE)


def _may_pass(error: KVError) -> bool:
    """Whether trying again has a chance: of a read, whatever is known of its outcome."""
    return error.retryable or isinstance(error, NoNodeAvailable)
