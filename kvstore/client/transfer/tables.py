"""CSV: a table with a header, each row of which becomes a JSON object of text."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator

import msgspec

from kvstore.client.transfer.objects import CONTENT_TYPE
from kvstore.client.transfer.records import BadLine, Held, Record
from kvstore.config import Limits
from kvstore.errors import ConfigError

_DELIMITERS = ",;\t"


def delimiter_of(head: bytes, key_field: str) -> str | None:
    """What separates the columns of a header one of which is the key's; None if none of them is."""
    first = head.lstrip().partition(b"\n")[0].decode(errors="replace").rstrip("\r")
    for delimiter in _DELIMITERS:
        if key_field in next(csv.reader([first], delimiter=delimiter), []):
            return delimiter
    return None


def table_records(lines: Iterable[bytes], delimiter: str, key_field: str) -> Iterator[Record | BadLine]:
    """The record of each row, under what it has in the column `key_field`; or what is wrong with it.

    Raises ConfigError for a header that cannot be used.
    """
    csv.field_size_limit(Limits.MAX_VALUE)  # of the process; its usual 128 KiB is less than a value may have
    rows = csv.reader(
        (line.decode(errors="surrogateescape") for line in lines), delimiter=delimiter, strict=True
    )
    columns = _header(rows, key_field)
    while True:
        number = rows.line_num + 1
        try:
            row = next(rows, None)
            if row is None:
                return
            if row:  # an empty line is none
                yield _record(number, columns, row, key_field)
        except BadLine as error:
            yield error
        except csv.Error as error:
            yield BadLine(number, f"is not CSV: {error}")


def _header(rows: Iterator[list[str]], key_field: str) -> list[str]:
    try:
        columns = next((row for row in rows if row), [])
    except csv.Error as error:
        raise ConfigError(f"the header is not CSV: {error}") from None
    if key_field not in columns:
        raise ConfigError(f"the header has no column {key_field!r}: it has {', '.join(map(repr, columns))}")
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise ConfigError(f"the header has the column {twice!r} more than once")
    return columns


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
