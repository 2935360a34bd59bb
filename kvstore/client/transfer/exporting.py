"""Reading a whole bucket, key by key, while nodes come and go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TypeVar

from kvstore.client.synchronous import Bucket
from kvstore.client.transfer.lines import ExportWriter
from kvstore.client.transfer.objects import is_too_deep, object_line
from kvstore.client.transfer.records import Problems, Record, Written, held, named
from kvstore.client.transfer.stretches import Stretches
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

    A key that cannot be read for a reason of its own is reported, and left out. Pages are read `at_once`.
    """

    def __init__(self, bucket: Bucket, patience: float, at_once: int = 1) -> None:
        self.report = ExportReport()
        self._bucket = bucket
        self._patience = patience
        self._at_once = at_once
        self._counting = Lock()

    def export(self) -> Iterator[bytes]:
        """What `ExportReader` reads, every key exactly: whole lines, those of a page at a time."""
        writer = ExportWriter()
        yield writer.header(self._bucket.name)
        for part in self._parts():
            for each in part:
                if any(is_too_deep(sibling.value) for sibling in each.siblings):
                    self.report.too_deep.add(
                        f"{named(each.key)} is nested too deeply for others to read as JSON"
                    )
            lines = writer.lines(part)
            self.report.exported += len(part)
            yield lines
        yield writer.summary(self.report.left_out.count)

    def objects(self) -> Iterator[bytes]:
        """The value of each key that has one JSON object, as whole lines; other keys are left out."""
        for part in self._parts():
            lines = [line for each in part if (line := self._object(each)) is not None]
            self.report.exported += len(lines)
            yield b"".join(lines)

    def _object(self, found: Written) -> bytes | None:
        line = object_line(found)
        if line is None:
            self.report.left_out.add(f"{named(found.key)} is no single JSON object")
        return line

    def _parts(self) -> Iterator[Sequence[Written]]:
        """Every key that has a value, with what it holds, in bounded parts."""
        for page in Stretches(self._page, self._at_once):
            small: list[Written] = []
            for each in page.keys:
                if not each.large:
                    small.append(each)
                    continue
                yield small  # not together with it, which may be large beyond a page
                small = []
                if (record := self._large(each.key)) is not None:
                    yield [record]
            yield small

    def _page(self, cursor: bytes, until: bytes) -> Scanned:
        return self._patiently(lambda: self._bucket.scan_page(cursor, until=until, values=True))

    def _large(self, key: bytes) -> Record | None:
        """A key whose values are too large for a page; None if they are gone, or cannot be read at all."""
        try:
            result = self._patiently(lambda: self._bucket.get(key))
        except KVError as error:
            if _may_pass(error):
                raise
            self.report.left_out.add(f"{named(key)} cannot be read: {error}")
            return None
        return Record(0, key, tuple(map(held, result.siblings))) if result.siblings else None

    def _patiently(self, ask: Callable[[], T]) -> T:
        """What nodes answer; an error that may pass is raised after the patience."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return ask()
            except KVError as error:
                if not _may_pass(error) or time.monotonic() > deadline:
                    raise
            with self._counting:
                self.report.retried += 1
            time.sleep(_PAUSE)


def _may_pass(error: KVError) -> bool:
    """Whether trying again has a chance: of a read, whatever is known of its outcome."""
    return error.retryable or isinstance(error, NoNodeAvailable)
