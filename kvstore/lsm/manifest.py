"""The manifest: which tables and log segments make up the store (docs/manifest.md).

A log of edits, each synced before it is acted upon. CURRENT names the manifest in use and is replaced by
an atomic rename; every open begins a new manifest with one edit that holds everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import msgspec

from kvstore.errors import Corruption, StorageFull, UnsupportedFormat
from kvstore.lsm.filesystem import FileSystem, WritableFile
from kvstore.lsm.record import DamagedRecord, TornRecord, decode_record, encode_record
from kvstore.lsm.sstable import TableInfo

MAGIC = b"kvsman\x00\x02"
CURRENT = "CURRENT"


class Edit(msgspec.Struct, frozen=True, array_like=True):
    """One change: tables that come and go, the next free file number, the LSN that is all in tables."""

    next_file: int
    flushed_lsn: int
    added: tuple[TableInfo, ...] = ()
    removed: tuple[int, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Edit)


def manifest_name(number: int) -> str:
    """File name of a manifest."""
    return f"MANIFEST-{number:08d}"


class Manifest:
    """The state of the store's files, and the log it is kept in.

    A log of edits that has grown beyond `largest` bytes, and to twice its first edit, begins anew.
    """

    def __init__(self, fs: FileSystem, directory: str, largest: int) -> None:
        self._fs = fs
        self.largest = largest
        self._file: WritableFile | None = None
        self._bytes = self._first_bytes = 0
        self._directory = directory
        self.next_file = 1
        self.flushed_lsn = 0
        self.tables: dict[int, TableInfo] = {}
        self.name = ""
        self._load()
        self._skip_used_numbers()
        self._begin()

    def take_number(self) -> int:
        """A file number never used before."""
        self.next_file += 1
        return self.next_file - 1

    def edit(self, added: Iterable[TableInfo], removed: Iterable[int], flushed_lsn: int) -> None:
        """Change the state; durable when this returns."""
        edit = Edit(self.next_file, max(flushed_lsn, self.flushed_lsn), tuple(added), tuple(removed))
        record = encode_record(_encoder.encode(edit))
        assert self._file is not None
        self._file.append(record)
        self._file.sync()
        self._apply(edit)
        self._bytes += len(record)
        if self._bytes > max(self.largest, 2 * self._first_bytes):
            with suppress(StorageFull):  # the edit is durable: the old log will do until there is space
                self._begin()

    def _begin(self) -> None:
        """Begin a new log of edits, and remove the one before it."""
        old, old_file = self.name, self._file
        name = manifest_name(self.take_number())
        self._file, self._first_bytes = _begin_log(self._fs, self._directory, name, self._everything())
        self._bytes, self.name = self._first_bytes, name
        if old_file is not None:
            old_file.close()
            self._fs.remove(f"{self._directory}/{old}")

    def copy_to(self, directory: str) -> None:
        """Make this state that of a store in another directory."""
        _begin_log(self._fs, directory, manifest_name(self.take_number()), self._everything())[0].close()

    def _everything(self) -> Edit:
        tables = tuple(self.tables[number] for number in sorted(self.tables))
        return Edit(self.next_file, self.flushed_lsn, tables)

    def close(self) -> None:
        """Close the log."""
        assert self._file is not None
        self._file.close()

    def _apply(self, edit: Edit) -> None:
        self.next_file = max(self.next_file, edit.next_file)
        self.flushed_lsn = edit.flushed_lsn
        for number in edit.removed:
            self.tables.pop(number, None)
        self.tables.update((table.number, table) for table in edit.added)

    def _load(self) -> None:
        names = self._fs.list(self._directory)
        if CURRENT not in names:
            # it was durable before the first of them: lost, or a checkpoint that a crash has cut short
            if any(name.endswith((".sst", ".wal")) for name in names):
                raise Corruption(f"{self._directory}/{CURRENT}", "is missing, but there are tables or logs")
            return
        path = f"{self._directory}/{CURRENT}"
        name = _read(self._fs, path).decode(errors="replace").strip()
        if not name.startswith("MANIFEST-") or name not in names:
            raise Corruption(path, f"names {name[:40]!r}, which is no manifest here")
        self._replay(f"{self._directory}/{name}")

    def _skip_used_numbers(self) -> None:
        """Begin above every file that is here: a job given out before a crash may still be writing one."""
        for name in self._fs.list(self._directory):
            digits = name.removeprefix("MANIFEST-").partition(".")[0]
            if digits.isascii() and digits.isdigit():
                self.next_file = max(self.next_file, int(digits) + 1)

    def _replay(self, path: str) -> None:
        data = _read(self._fs, path)
        magic = data[: len(MAGIC)]
        if magic != MAGIC:
            if magic[:-1] == MAGIC[:-1]:
                raise UnsupportedFormat(path, f"is of format {magic[-1]}, this program reads {MAGIC[-1]}")
            raise Corruption(path, "is no manifest")
        offset = len(MAGIC)
        edits = 0
        while offset < len(data):
            try:
                payload, offset = decode_record(data, offset)
                self._apply(_decoder.decode(payload))
            except TornRecord:
                break  # the edit was never synced, so nothing was done because of it
            except (DamagedRecord, msgspec.MsgspecError, UnicodeDecodeError):
                raise Corruption(path, f"the edit at byte {offset} is damaged") from None
            edits += 1
        if not edits:
            raise Corruption(path, "holds no edit")


def _begin_log(fs: FileSystem, directory: str, name: str, everything: Edit) -> tuple[WritableFile, int]:
    """A log with one edit, and CURRENT naming it, both durable; the file and its size."""
    data = MAGIC + encode_record(_encoder.encode(everything))
    file = fs.create(f"{directory}/{name}")
    file.append(data)
    file.sync()
    fs.sync_directory(directory)
    temporary = f"{directory}/{CURRENT}.new"
    current = fs.create(temporary)
    current.append(name.encode() + b"\n")
    current.sync()
    current.close()
    fs.rename(temporary, f"{directory}/{CURRENT}")
    fs.sync_directory(directory)
    return file, len(data)


def _read(fs: FileSystem, path: str) -> bytes:
    file = fs.open(path)
    try:
        return file.read(0, file.size())
    finally:
        file.close()
