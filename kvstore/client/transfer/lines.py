"""The file that an export is: JSON Lines that hold every key exactly, between a header and a summary.

docs/kvctl.md describes it; its version is in the header.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import google_crc32c
import msgspec
from msgspec import Meta

from kvstore.client.transfer.records import BadLine, Held, Record, Written, check_length
from kvstore.errors import ConfigError
from kvstore.protocol.client import Value
from kvstore.versions import MAX_EXPIRY

FORMAT = 1
"""Of the lines; a reader refuses a later one."""
EXPORT_BEGINS = b'{"kind":"export","format":'
"""What the header begins with, as it is written here."""


class _Sibling(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A value: as text, or what is not UTF-8 as base64."""

    value: str | None = None
    value_base64: bytes | None = None
    content_type: str = ""
    expiry_ms: int = 0


class _Header(msgspec.Struct, frozen=True, tag="export", tag_field="kind"):
    format: Annotated[int, Meta(ge=1)]
    bucket: str


class _Key(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag="key",
    tag_field="kind",
):
    key: str | None = None
    key_base64: bytes | None = None
    siblings: list[_Sibling]


class _Summary(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="end", tag_field="kind"):
    """How many keys the file has, how many were left out of it, and the CRC-32C of all lines of keys."""

    keys: Annotated[int, Meta(ge=0)]
    left_out: Annotated[int, Meta(ge=0)]
    crc32c: int


_Line = _Header | _Key | _Summary
_DECODER: msgspec.json.Decoder[_Line] = msgspec.json.Decoder(_Line)
_encoder = msgspec.json.Encoder()
_encode, _encode_lines = _encoder.encode, _encoder.encode_lines


@dataclass(slots=True)
class _Section:
    """The lines between a header and its summary, so far."""

    keys: int = 0
    checksum: int = 0

    def add(self, lines: bytes, count: int = 1) -> None:
        """Count so many lines, which are given without their ends."""
        self.keys += count
        self.checksum = google_crc32c.extend(self.checksum, lines)


class ExportWriter:
    """Makes the lines of one export."""

    def __init__(self) -> None:
        self._section = _Section()

    def header(self, bucket: str) -> bytes:
        """The first line."""
        return _encode(_Header(FORMAT, bucket)) + b"\n"

    def lines(self, keys: Sequence[Written]) -> bytes:
        """The lines of some keys."""
        lines = _encode_lines([_key(each) for each in keys])
        self._section.add(lines.replace(b"\n", b""), len(keys))
        return lines

    def summary(self, left_out: int) -> bytes:
        """The last line."""
        return _encode(_Summary(self._section.keys, left_out, self._section.checksum)) + b"\n"


class ExportReader:
    """Reads an export, or several in a row; `left_out` adds up what their summaries say was left out of them.

    Iterating over `records` raises ConfigError if the file is no export at all.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._section: _Section | None = None

    def records(self, lines: Iterable[bytes]) -> Iterator[Record | BadLine]:
        """The record of each key, or what is wrong with a line; in the end, if the summary is missing."""
        number, empty = 0, True
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            empty = False
            try:
                record = self._read(number, line.rstrip(b"\r\n"))
            except BadLine as error:
                yield error
            else:
                if record is not None:
                    yield record
        if self._section is not None:
            yield BadLine(number + 1, "is missing: the file is cut off before the summary of its export")
        elif empty:
            raise ConfigError("the file is empty: an export has a header and a summary")

    def _read(self, number: int, line: bytes) -> Record | None:
        """The record of a line, None for a header or summary; raises BadLine."""
        found = _decode(number, line)
        if self._section is None and not isinstance(found, _Header):
            if number == 1:
                raise ConfigError("this is no export of kvctl: for JSON or CSV of other programs give --key")
            raise BadLine(number, "comes after the summary of an export, and is no header")
        if isinstance(found, _Header):
            self._begin(number, found)
            return None
        if isinstance(found, _Summary):
            self._end(number, found)
            return None
        assert self._section is not None
        self._section.add(line)
        if isinstance(found, BadLine):
            raise found
        return _record(number, found)

    def _begin(self, number: int, header: _Header) -> None:
        if header.format > FORMAT:
            raise ConfigError(f"line {number}: format {header.format} is of a later version than {FORMAT}")
        cut_off, self._section = self._section, _Section()
        if cut_off is not None:
            raise BadLine(number, "begins an export, and the one before it has no summary: it is cut off")

    def _end(self, number: int, summary: _Summary) -> None:
        section, self._section = self._section, None
        assert section is not None
        self.left_out += summary.left_out
        if summary.keys != section.keys:
            raise BadLine(number, f"says that the export has {summary.keys:,} keys: it has {section.keys:,}")
        if summary.crc32c != section.checksum:
            raise BadLine(number, "does not agree with the lines before it: they were changed later")


def _decode(number: int, line: bytes) -> _Line | BadLine:
    """What a line is; a BadLine for one that cannot be read."""
    try:
        check_length(number, line)
        return _DECODER.decode(line)
    except BadLine as error:
        return error
    except UnicodeDecodeError:
        return BadLine(number, "is not UTF-8")
    except RecursionError:
        return BadLine(number, "is nested too deeply")
    except msgspec.ValidationError as error:
        return BadLine(number, f"is no line of an export: {error}")
    except msgspec.DecodeError as error:
        return BadLine(number, f"is not JSON: {error}")


def _record(number: int, found: _Key) -> Record:
    siblings = tuple(
        Held(_bytes(number, "value", each.value, each.value_base64), each.content_type, each.expiry_ms)
        for each in found.siblings
    )
    if not siblings:
        raise BadLine(number, "has no siblings")
    if any(not 0 <= held.expiry <= MAX_EXPIRY for held in siblings):
        raise BadLine(number, f"has an expiry_ms that is not between 0 and {MAX_EXPIRY}")
    record = Record(number, _bytes(number, "key", found.key, found.key_base64), siblings)
    record.check()
    return record


def _bytes(number: int, field: str, text: str | None, data: bytes | None) -> bytes:
    if text is not None and data is None:
        return text.encode()
    if data is not None and text is None:
        return data
    raise BadLine(number, f"needs {field} or {field}_base64, one of them")


def _key(written: Written) -> _Key:
    key, key_base64 = _text(written.key)
    siblings = [_sibling(each) for each in written.siblings]
    return _Key(key=key, key_base64=key_base64, siblings=siblings)


def _sibling(held: Held | Value) -> _Sibling:
    value, value_base64 = _text(held.value)
    return _Sibling(value, value_base64, held.content_type, held.expiry)


def _text(data: bytes) -> tuple[str | None, bytes | None]:
    """Bytes as text, or as they are if they are none."""
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return None, data
