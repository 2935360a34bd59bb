"""The lines of `kvctl data dump`, read and written into a new store."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from kvstore.client.transfer.records import BadLine, check_length
from kvstore.config import MIB
from kvstore.errors import Corruption, InvalidRequest
from kvstore.hlc import hybrid_time
from kvstore.kvctl.records import NODE, key_fields
from kvstore.kvctl.whole_file import WholeFile
from kvstore.protocol.internal_key import data_key, token
from kvstore.quorum.hints import hint_key
from kvstore.server.data_directory import IDENTITY
from kvstore.store import Store
from kvstore.versions import BucketName, Dot, Sibling, UserKey, Version, check_version, encode_version

_BATCH_RECORDS = 1000
_BATCH_BYTES = MIB


class _Sibling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dot: tuple[str, int]
    time_ms: int
    time_counter: int = 0
    expiry_ms: int | None = None
    content_type: str = ""
    value: str | None = None
    value_base64: bytes | None = None
    deleted: bool = False


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Any line; which fields it has depends on its kind, and one of --raw has none."""

    kind: str = "raw"
    identity: dict[str, Any] | None = None
    records: int | None = None
    token: str = ""
    target: str = ""
    bucket: str = ""
    name: str | None = None
    name_base64: bytes | None = None
    key: str | None = None
    key_base64: bytes | None = None
    context: dict[str, int] | None = None
    siblings: tuple[_Sibling, ...] = ()
    damaged: str = ""
    value: str | None = None
    value_base64: bytes | None = None


_decode = msgspec.json.Decoder(_Line).decode


class Loader:
    """Fills a new directory: `records` are those written, `secrets` those that the dump does not tell."""

    def __init__(self, directory: Path) -> None:
        self.records = 0
        self.secrets = 0
        self._directory = directory
        self._batch: list[tuple[bytes, bytes | None]] = []
        self._bytes = 0

    def run(self, lines: Iterable[bytes]) -> None:
        """Load all lines of a dump; raises BadLine for what is none, StorageError, OSError."""
        identity: dict[str, Any] | None = None
        ended: int | None = None
        number = 0
        node = self._directory / "engine"
        with Store.open(node) as store:
            for number, line in enumerate(lines, 1):
                found = _parsed(number, line)
                if ended is not None:
                    raise BadLine(number, "comes after the end of the dump")
                match found.kind:
                    case "identity":
                        identity = found.identity
                    case "end":
                        ended = found.records
                    case _:
                        self._add(store, number, found)
            if ended is None:
                raise BadLine(number + 1, "is missing: the dump is cut off before its end")
            if ended != self.records + self.secrets:
                said = f"says that the dump has {ended:,} records"
                raise BadLine(number, f"{said}: it has {self.records + self.secrets:,}")
            store.write(self._batch)
        if identity is None:
            _lift(node, self._directory)
        else:
            with WholeFile(str(self._directory / IDENTITY)) as file:
                file.write(msgspec.json.encode(identity))
                file.keep(incomplete=False)

    def _add(self, store: Store, number: int, found: _Line) -> None:
        if found.kind == "node" and found.value_base64 is None:
            self.secrets += 1
            return
        try:
            key, value = _record(found)
            if found.kind not in ("raw", key_fields(key)["kind"]):
                raise ValueError(f"has no key of the kind {found.kind!r}")
        except (Corruption, InvalidRequest, ValueError) as error:
            raise BadLine(number, str(error)) from None
        self.records += 1
        self._batch.append((key, value))
        self._bytes += len(value)
        if len(self._batch) >= _BATCH_RECORDS or self._bytes >= _BATCH_BYTES:
            store.write(self._batch)
            self._batch, self._bytes = [], 0


def _lift(store: Path, directory: Path) -> None:
    """A store of no node lies in its directory itself."""
    for file in store.iterdir():
        os.replace(file, directory / file.name)
    store.rmdir()


def _parsed(number: int, line: bytes) -> _Line:
    check_length(number, line)
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadLine(number, f"is no line of a dump: {error}") from None


def _record(found: _Line) -> tuple[bytes, bytes]:
    """A key and a value of the engine; raises ValueError, Corruption or InvalidRequest for a bad one."""
    match found.kind:
        case "raw" | "unknown":
            if found.key_base64 is None or found.value_base64 is None:
                raise ValueError("needs key_base64 and value_base64")
            return found.key_base64, found.value_base64
        case "node":
            return NODE + _bytes(found.name, found.name_base64, "name"), found.value_base64 or b""
        case "data" | "hint":
            bucket, name = BucketName(found.bucket), UserKey(_bytes(found.key, found.key_base64, "key"))
            key_token = token(bucket, name)
            if f"{key_token:016x}" != found.token:
                raise ValueError(f"has the token {found.token}: that of its key is {key_token:016x}")
            key = data_key(key_token, bucket, name)
            return hint_key(found.target, key) if found.kind == "hint" else key, _version(found)
        case _:
            raise ValueError(f"is of the kind {found.kind!r}, which no dump has")


def _version(found: _Line) -> bytes:
    if found.damaged:
        return found.value_base64 or b""
    if found.context is None:
        raise ValueError("needs a context")
    context = tuple(Dot(actor, counter) for actor, counter in found.context.items())
    encoded = encode_version(Version(context, tuple(map(_sibling, found.siblings))))
    check_version(encoded)
    return encoded


def _sibling(found: _Sibling) -> Sibling:
    value = None if found.deleted else _bytes(found.value, found.value_base64, "value")
    time = hybrid_time(found.time_ms, found.time_counter)
    return Sibling(Dot(*found.dot), value, time, found.expiry_ms or 0, found.content_type)


def _bytes(text: str | None, data: bytes | None, field: str) -> bytes:
    if (text is None) == (data is None):
        raise ValueError(f"needs {field} or {field}_base64, one of them")
    return text.encode() if text is not None else data or b""
