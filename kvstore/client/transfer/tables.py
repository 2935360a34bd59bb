"""CSV: a table with a header, each row of which becomes a JSON object of text."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import suppress

import msgspec

from kvstore.client.transfer.objects import CONTENT_TYPE
from kvstore.client.transfer.records import BadLine, Held, Record, named
from kvstore.config import Limits
from kvstore.errors import ConfigError

_DELIMITERS = ",;\t"
_SHOWN = 20
"""Columns of a header that lacks the one that was asked for."""


def delimiter_of(head: bytes, key_field: str) -> str | None:
    """What separates the columns of a header one of which is the key's; None if none of them is."""
    first = head.lstrip().partition(b"\n")[0].decode(errors="replace").rstrip("\r")
    for delimiter in _DELIMITERS:
        with suppress(csv.Error):  # of a line that is no header
            if key_field in next(csv.reader([first], delimiter=delimiter), []):
                return delimiter
    return None


def table_records(lines: Iterable[bytes], delimiter: str, key_field: str) -> Iterator[Record | BadLine]:
    """The record of each row, under what it has in the column `key_field`; or what is wrong with it.

    Raises ConfigError for a header that cannot be used.
    """
    csv.field_size_limit(Limits.MAX_VALUE)  # of the process; its usual 128 KiB is less than a value may have
    text = _Text(lines)
    rows = csv.reader(text, delimiter=delimiter, strict=True)
    columns = _header(rows, key_field)
    while True:
        number = rows.line_num + 1
        text.of_row = 0
        try:
            row = next(rows, None)
            if row is None:
                return
            if row:  # an empty line is none
                yield _record(number, columns, row, key_field)
        except BadLine as error:
            yield error
        except csv.Error as error:
            yield BadLine(number, f"is not CSV: {_reason(error)}")


class _Text:
    """Lines for the reader of CSV. Raises csv.Error for a row that has more bytes than a value may have.

    A list of its fields, which may be empty, would take eight times as many. `of_row` is set to 0 before
    each row.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)
        self.of_row = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.of_row += len(line)
        if self.of_row > Limits.MAX_VALUE:
            raise csv.Error(f"has more than {Limits.MAX_VALUE:,} bytes")
        return line.decode(errors="surrogateescape")


def _header(rows: Iterator[list[str]], key_field: str) -> list[str]:
    try:
        columns = next((row for row in rows if row), [])
    except csv.Error as error:
        raise ConfigError(f"the header is not CSV: {_reason(error)}") from None
    if key_field not in columns:
        raise ConfigError(f"the header has no column {key_field!r}: it has {_listed(columns)}")
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise ConfigError(f"the header has the column {twice!r} more than once")
    return columns


def _listed(columns: list[str]) -> str:
    shown = [named(column.encode(errors="surrogateescape")) for column in columns[:_SHOWN]]
    more = len(columns) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _reason(error: csv.Error) -> str:
    """Python's own text speaks of how a program should have opened the file."""
    text = str(error)
    return "a carriage return ends a line, or is in a field without quotes" if "new-line" in text else text


def _record(number: int, columns: list[str], row: list[str], key_field: str) -> Record:
    if len(row) != len(columns):
        raise BadLine(number, f"has {len(row)} fields: the header has {len(columns)}")
    fields = dict(zip(columns, row, strict=True))
    try:
        value = msgspec.json.encode(fields)
    except UnicodeEncodeError:
        raise BadLine(number, "is not UTF-8") from None
    record = Record(number, fields[key_field].encode(), (Held(value, CONTENT_TYPE),))
    record.check()
    return record
