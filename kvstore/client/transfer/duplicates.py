"""Which keys a file has had so far, in bounded memory: a file may have more of them than fit."""

from __future__ import annotations

import errno
import hashlib
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from kvstore.client.transfer.records import Record


class KeysOfFile:
    """The keys of the lines of one file, and where each stood last; the most of it is on disk.

    Everything raises OSError when the directory for temporary files has no room for them.
    """

    def __init__(self) -> None:
        # without a name: a temporary file, which SQLite deletes by itself
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute(
            "CREATE TABLE lines (key BLOB PRIMARY KEY, number INTEGER, content BLOB) WITHOUT ROWID"
        )
        self._database.execute("BEGIN")  # one transaction for all, which nobody ever commits

    def close(self) -> None:
        """Forget them."""
        self._database.close()

    def earlier(self, record: Record, keep: bool) -> int | None:
        """The number of the line that had this key before, with other content; None if there is none.

        From now on the key's line is this one, unless the first is to `keep` its place.
        """
        content = _digest(record)
        with _disk_errors():
            line = (record.key, record.number, content)
            if self._database.execute("INSERT OR IGNORE INTO lines VALUES (?, ?, ?)", line).rowcount:
                return None
            asked = self._database.execute("SELECT number, content FROM lines WHERE key = ?", (record.key,))
            number, had = asked.fetchone()
            if not keep:
                self._database.execute("REPLACE INTO lines VALUES (?, ?, ?)", line)
        return number if had != content else None


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        number = errno.ENOSPC if error.sqlite_errorcode == sqlite3.SQLITE_FULL else errno.EIO
        where = f"the list of keys in {tempfile.gettempdir()}"
        raise OSError(number, str(error), where) from error


def _digest(record: Record) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for held in record.siblings:
        digest.update(f"{len(held.value)} {held.expiry} {held.content_type}\0".encode())
        digest.update(held.value)
    return digest.digest()
