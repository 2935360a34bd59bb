"""The manifest: which tables and log segments make up the store (docs/manifest.md).

A log of edits, each synced before it is acted upon. CURRENT names the manifest in use and is replaced by
an atomic rename; every open begins a new manifest with one edit that holds everything, as soon as there
is space for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

import msgspec

from kvstore.errors import Corruption, StorageError, StorageFull
from kvstore.lsm.filesystem import FileSystem, WritableFile, sync_file
from kvstore.lsm.magic import check_magic
from kvstore.lsm.messages import Position, TableInfo
from kvstore.lsm.readable_files import ReadableFiles
from kvstore.lsm.record import DamagedRecord, TornRecord, decode_record, encode_record, readable_records
from kvstore.lsm.whole_files import read_file

MAGIC = b"kvsman\x00\x02"
CURRENT = "CURRENT"

_GIVEN_OUT = 10_000
"""Numbers that jobs under way may have: one compaction has one for each table that it may write."""


class Edit(msgspec.Struct, frozen=True, array_like=True):
    """One change: tables that come and go, the next free file number, the LSN that is all in tables."""

    next_file: Position
    flushed_lsn: Position
    added: tuple[TableInfo, ...] = ()
    removed: tuple[Position, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Edit)


def manifest_name(number: int) -> str:
    """File name of a manifest."""
    return f"MANIFEST-{number:08d}"


class StoreState:
    """Which files make up a store: what all edits add up to."""

    def __init__(self) -> None:
        self.next_file = 1
        self.flushed_lsn = 0
        self.tables: dict[int, TableInfo] = {}

    def apply(self, edit: Edit) -> None:
        """Make a change."""
        self.next_file = max(self.next_file, edit.next_file)
        self.flushed_lsn = edit.flushed_lsn
        for number in edit.removed:
            self.tables.pop(number, None)
        self.tables.update((table.number, table) for table in edit.added)

    def everything(self) -> Edit:
        """One edit with all that is here."""
        tables = tuple(self.tables[number] for number in sorted(self.tables))
        return Edit(self.next_file, self.flushed_lsn, tables)


def current_manifest(fs: ReadableFiles, directory: str) -> str:
    """The name of the manifest in use, empty where there is no store yet; raises Corruption."""
    names = fs.list(directory)
    if CURRENT not in names:
        # it was durable before the first of them: lost, or a checkpoint that a crash has cut short
        if any(name.endswith((".sst", ".wal")) for name in names):
            raise Corruption(f"{directory}/{CURRENT}", "is missing, but there are tables or logs")
        return ""
    path = f"{directory}/{CURRENT}"
    name = read_file(fs, path).decode(errors="replace").strip()
    if not name.startswith("MANIFEST-") or name not in names:
        raise Corruption(path, f"names {name[:40]!r}, which is no manifest here")
    return name


def read_edits(fs: ReadableFiles, path: str) -> Iterator[Edit]:
    """All edits of a manifest, at least one; raises Corruption, UnsupportedFormat.

    The last edit may not have been synced before a crash: then nothing was done because of it, and what there
    is of it is ignored. A damaged one that any record follows was synced.
    """
    data = read_file(fs, path)
    if len(data) < len(MAGIC):
        raise Corruption(path, "is cut off")
    check_magic(path, data[: len(MAGIC)], MAGIC, "manifest")
    offset = len(MAGIC)
    while offset < len(data):
        try:
            payload, after = decode_record(data, offset)
            edit = _decoder.decode(payload)
        except TornRecord:
            break
        except (DamagedRecord, msgspec.MsgspecError, UnicodeDecodeError) as error:
            if isinstance(error, DamagedRecord) and not _is_followed(data, offset):
                break
            raise Corruption(path, f"the edit at byte {offset} is damaged", offset) from None
        yield edit
        offset = after
    if offset == len(MAGIC):
        raise Corruption(path, "holds no edit")


def _is_followed(data: bytes, offset: int) -> bool:
    """Whether there is a record behind the damaged one."""
    return any(True for _ in readable_records(data, offset))


class Manifest(StoreState):
    """The state of the store's files, and the log it is kept in.

    A log of edits that has grown beyond `largest` bytes, and to twice its first edit, begins anew.
    """

    def __init__(self, fs: FileSystem, directory: str, largest: int) -> None:
        super().__init__()
        self._fs = fs
        self.largest = largest
        self._file: WritableFile | None = None
        self._bytes = self._first_bytes = 0
        self._directory = directory
        self.name = current_manifest(fs, directory)
        if self.name:
            for edit in read_edits(fs, f"{directory}/{self.name}"):
                self.apply(edit)
        self._skip_used_numbers()

    def begin(self) -> None:
        """Begin the log of edits of this open, unless it has begun; raises StorageFull: nothing changed."""
        if self._file is None:
            self._begin()

    def settle(self) -> None:
        """Make durable what was read, which the process that wrote it may not have come to."""
        if self.name:
            sync_file(self._fs, f"{self._directory}/{self.name}")
        self._fs.sync_directory(self._directory)

    def take_number(self) -> int:
        """A file number never used before."""
        self.next_file += 1
        return self.next_file - 1

    def edit(self, added: Iterable[TableInfo], removed: Iterable[int], flushed_lsn: int) -> None:
        """Change the state; durable when this returns. Raises StorageFull: nothing has changed."""
        self.begin()
        edit = Edit(self.next_file, max(flushed_lsn, self.flushed_lsn), tuple(added), tuple(removed))
        record = encode_record(_encoder.encode(edit))
        assert self._file is not None
        self._file.truncate(self._bytes)  # in the place of what proves the edit before it
        self._file.append(record)
        self._file.sync()
        self.apply(edit)
        self._bytes += len(record)
        self._prove()
        if self._bytes > max(self.largest, 2 * self._first_bytes):
            with suppress(StorageFull):  # the edit is durable: the old log will do until there is space
                self._begin()

    def _prove(self) -> None:
        """Tell whoever reads the last edit damaged that it was durable: an edit that changes nothing follows.

        It is not synced: it serves where there was no crash since. So the next edit takes its place: were it
        lost before one that is there, it would look like damage.
        """
        assert self._file is not None
        with suppress(StorageFull):
            self._file.append(encode_record(_encoder.encode(Edit(self.next_file, self.flushed_lsn))))

    def _begin(self) -> None:
        """Begin a new log of edits, and remove the one before it."""
        old, old_file = self.name, self._file
        name = manifest_name(self.take_number())
        self._file, self._first_bytes = _begin_log(self._fs, self._directory, name, self.everything())
        self._bytes, self.name = self._first_bytes, name
        if old_file is not None:
            old_file.close()
        if old:
            with suppress(StorageError):  # else it stays until the next open
                self._fs.remove(f"{self._directory}/{old}")

    def copy_to(self, directory: str) -> None:
        """Make this state that of a store in another directory."""
        _begin_log(self._fs, directory, manifest_name(self.take_number()), self.everything())[0].close()

    def close(self) -> None:
        """Close the log."""
        if self._file is not None:
            self._file.close()

    def _skip_used_numbers(self) -> None:
        """Begin above every file that is here, and far above all numbers that may have been given out.

        A worker of before a crash ends with its owner as soon as it gets the processor. On a busy machine
        that may be after this open: until then it may write, or remove, files of the numbers it was given.
        """
        if self.name:
            self.next_file += _GIVEN_OUT
        for name in self._fs.list(self._directory):
            digits = name.removeprefix("MANIFEST-").partition(".")[0]
            if digits.isascii() and digits.isdigit():
                self.next_file = max(self.next_file, int(digits) + 1)


def _begin_log(fs: FileSystem, directory: str, name: str, everything: Edit) -> tuple[WritableFile, int]:
    """A log with one edit, and CURRENT naming it, both durable; the file and its size.

    Raises StorageFull: then nothing is left of it, however often it is tried.
    """
    data = MAGIC + encode_record(_encoder.encode(everything))
    file = fs.create(f"{directory}/{name}")
    try:
        file.append(data)
        file.sync()
        fs.sync_directory(directory)
        _point_to(fs, directory, name)
    except BaseException as error:
        file.close()
        if isinstance(error, StorageFull):
            for unfinished in (_unfinished(directory), f"{directory}/{name}"):
                with suppress(StorageError):  # else it stays until the next open
                    fs.remove(unfinished)
        raise
    return file, len(data)


def _unfinished(directory: str) -> str:
    return f"{directory}/{CURRENT}.new"


def _point_to(fs: FileSystem, directory: str, name: str) -> None:
    """Make CURRENT name a manifest, durably and at once."""
    temporary = _unfinished(directory)
    current = fs.create(temporary)
    try:
        current.append(name.encode() + b"\n")
        current.sync()
    finally:
        current.close()
    fs.rename(temporary, f"{directory}/{CURRENT}")
    fs.sync_directory(directory)
