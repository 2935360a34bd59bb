"""Moving whole files in and out: JSON Lines, one object a line, its key in one of its fields."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from kvstore.client.errors import PartialFailure
from kvstore.client.results import Key, Result
from kvstore.client.synchronous import Bucket
from kvstore.config import Limits
from kvstore.errors import InvalidRequest, KVError, NoNodeAvailable

CONTENT_TYPE = "application/json"

_BATCH = 500
_BATCH_BYTES = 4 * 1024 * 1024
_PAUSE = 0.2

Stored = Callable[[str, bytes], None]
"""Called with each key and value that has been acknowledged."""


class BadLine(KVError):
    """A line that cannot be imported; nothing of it was stored. `number` counts from 1."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"line {number}: {reason}")
        self.number = number


@dataclass(frozen=True, slots=True)
class Record:
    """A line that can be imported: the key, and the line itself as the value."""

    number: int
    key: str
    value: bytes


@dataclass(slots=True)
class ImportReport:
    """Counts of an import, up to date at any time; `bad` are the lines that could not be imported."""

    imported: int = 0
    unchanged: int = 0
    retried: int = 0
    bad: list[BadLine] = field(default_factory=list)


def parse_line(number: int, line: bytes, key_field: str, limits: Limits) -> Record | None:
    """The record of a line, None for an empty one; raises BadLine."""
    text = line.strip()
    if not text:
        return None
    try:
        found = json.loads(text)
    except UnicodeDecodeError:
        raise BadLine(number, "is not UTF-8") from None
    except ValueError as error:
        raise BadLine(number, f"is not JSON: {error}") from None
    except RecursionError:
        raise BadLine(number, "is nested too deeply") from None
    if not isinstance(found, dict):
        raise BadLine(number, "is not a JSON object")
    if key_field not in found:
        raise BadLine(number, f"has no field {key_field!r}")
    key = found[key_field]
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise BadLine(number, f"field {key_field!r} is neither text nor a whole number")
    try:
        limits.check_key(str(key).encode())
        limits.check_value(text)
    except (InvalidRequest, UnicodeEncodeError) as error:
        raise BadLine(number, str(error)) from None
    return Record(number, str(key), text)


class Importer:
    """Writes records over what it read of their keys, so that doing it again changes nothing.

    A write whose outcome is unknown is read again before it is tried again, for up to `patience` seconds.
    """

    def __init__(self, bucket: Bucket, patience: float, on_stored: Stored | None = None) -> None:
        self.report = ImportReport()
        self._bucket = bucket
        self._patience = patience
        self._on_stored = on_stored or _nobody_asks

    def run(self, lines: Iterable[bytes], key_field: str, skip_bad: bool) -> ImportReport:
        """Import all lines; raises BadLine for the first bad one unless they are to be skipped.

        Lines before it are stored then. Raises the error of a write that failed for too long.
        """
        batch: dict[str, Record] = {}
        size = 0
        for number, line in enumerate(lines, 1):
            try:
                record = parse_line(number, line, key_field, Limits())
            except BadLine as error:
                self.report.bad.append(error)
                if skip_bad:
                    continue
                self._store(batch)
                raise
            if record is None:
                continue
            if record.key in batch or len(batch) >= _BATCH or size >= _BATCH_BYTES:
                self._store(batch)
                batch, size = {}, 0
            batch[record.key] = record
            size += len(record.value)
        self._store(batch)
        return self.report

    def _store(self, batch: dict[str, Record]) -> None:
        deadline = time.monotonic() + self._patience
        left = batch
        while left:
            left, error = self._attempt(left)
            if error is not None:
                if isinstance(error, InvalidRequest) or time.monotonic() > deadline:
                    raise error
                self.report.retried += len(left)
                time.sleep(_PAUSE)

    def _attempt(self, batch: dict[str, Record]) -> tuple[dict[str, Record], KVError | None]:
        """Read and write a batch once; what is left to do, and why."""
        try:
            seen = self._bucket.get_many(batch)
        except PartialFailure as error:
            return batch, next(iter(error.failed.values()))
        except NoNodeAvailable as error:
            return batch, error
        changed = {key: r for key, r in batch.items() if not _holds(seen[key], r.value)}
        for key in batch.keys() - changed.keys():
            self.report.unchanged += 1
            self._on_stored(key, batch[key].value)
        return self._write(changed, seen)

    def _write(
        self, batch: dict[str, Record], seen: dict[str, Result]
    ) -> tuple[dict[str, Record], KVError | None]:
        values = {key: record.value for key, record in batch.items()}
        contexts = {key: seen[key].context for key in batch}
        failed: Mapping[Key, KVError] = {}
        try:
            self._bucket.put_many(values, contexts=contexts, content_type=CONTENT_TYPE)
        except PartialFailure as error:
            failed = error.failed
        except NoNodeAvailable as error:
            failed = dict.fromkeys(values, error)
        for key, value in values.items():
            if key not in failed:
                self.report.imported += 1
                self._on_stored(key, value)
        first = next(iter(failed.values()), None)
        return {key: record for key, record in batch.items() if key in failed}, first


def _holds(result: Result, value: bytes) -> bool:
    return len(result.siblings) == 1 and result.siblings[0].value == value


def _nobody_asks(key: str, value: bytes) -> None:
    """For an import that nobody follows key by key."""


@dataclass(slots=True)
class ExportReport:
    """Counts of an export; `skipped` keys held no JSON object or several values."""

    exported: int = 0
    skipped: list[str] = field(default_factory=list)


def export_lines(bucket: Bucket, report: ExportReport) -> Iterator[bytes]:
    """Every value that is one JSON object, as a line that `Importer` takes; other keys are reported."""
    keys: list[bytes] = []
    for key in bucket.scan_keys():
        keys.append(key)
        if len(keys) == _BATCH:
            yield from _lines(bucket, keys, report)
            keys = []
    if keys:
        yield from _lines(bucket, keys, report)


def _lines(bucket: Bucket, keys: list[bytes], report: ExportReport) -> Iterator[bytes]:
    for key, result in bucket.get_many(keys).items():
        if not result.siblings:
            continue  # deleted since it was listed
        if len(result.siblings) > 1 or not _is_object(result.siblings[0].value):
            report.skipped.append(key.decode(errors="backslashreplace"))
            continue
        report.exported += 1
        yield result.siblings[0].value.replace(b"\n", b" ") + b"\n"


def _is_object(value: bytes) -> bool:
    try:
        return isinstance(json.loads(value), dict)
    except ValueError:
        return False
