"""Files of other programs: which form one has, and its records."""

from __future__ import annotations

from collections.abc import Iterator

from kvstore.client.transfer.arrays import array_records
from kvstore.client.transfer.lines import EXPORT_BEGINS
from kvstore.client.transfer.objects import object_records
from kvstore.client.transfer.records import BadLine, Record
from kvstore.client.transfer.source import Source
from kvstore.client.transfer.tables import delimiter_of, table_records
from kvstore.config import Limits
from kvstore.errors import ConfigError

_TABLES = {".csv": ",", ".tsv": "\t"}
"""Names of files that hold tables, and what separates columns unless the header shows something else."""


def foreign_records(source: Source, name: str, key_field: str) -> Iterator[Record | BadLine]:
    """The records of a JSON array, of JSON Lines, or of CSV.

    It is CSV if the file's name ends like one, or if its header has the column of the key; else an array if
    it begins with a bracket. Raises ConfigError for a table without this column, and for an export.
    """
    head = source.head()
    if head.startswith(EXPORT_BEGINS):
        raise ConfigError("this is an export of kvctl: leave out --key")
    usual = _TABLES.get(name[-4:].lower())
    if delimiter := delimiter_of(head, key_field) or usual:
        return table_records(source.lines(Limits.MAX_VALUE), delimiter, key_field)
    if head.lstrip().startswith(b"["):
        return array_records(source.pieces(), key_field)
    return object_records(source.lines(Limits.MAX_VALUE), key_field)
