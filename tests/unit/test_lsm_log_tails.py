"""What may lie behind the last edit of a manifest, and what a failed append must not leave there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kvstore.errors import Corruption, StorageFull
from kvstore.lsm import Engine
from kvstore.lsm.manifest import read_edits
from kvstore.lsm.record import encode_record
from kvstore.store import DiskFileSystem


def manifest_of_a_store(directory: Path) -> Path:
    with_nothing = Engine.open(DiskFileSystem(), str(directory))
    with_nothing.close()
    (path,) = directory.glob("MANIFEST-*")
    return path


@pytest.mark.parametrize(
    "tail",
    [b"\0", b"\0" * 5000, b"\x10\0", b"\1" * 12, b"\0" * 12 + b"\1"],
    ids=["zero", "zeros", "cut off", "damaged", "its first page is zeros"],
)
def test_a_tail_that_was_never_synced_is_ignored(tmp_path: Path, tail: bytes) -> None:
    path = manifest_of_a_store(tmp_path)
    path.write_bytes(path.read_bytes() + tail)
    assert len(list(read_edits(DiskFileSystem(), str(path)))) == 1


@pytest.mark.parametrize("tail", [b"\1" * 12, b"\0" * 12 + b"\1"])
def test_damage_before_another_record_is_corruption(tmp_path: Path, tail: bytes) -> None:
    path = manifest_of_a_store(tmp_path)
    path.write_bytes(path.read_bytes() + tail + encode_record(b"anything"))
    with pytest.raises(Corruption, match=r"the edit at byte \d+ is damaged"):
        list(read_edits(DiskFileSystem(), str(path)))


def test_an_edit_of_another_shape_is_corruption(tmp_path: Path) -> None:
    path = manifest_of_a_store(tmp_path)
    path.write_bytes(path.read_bytes() + encode_record(b"anything"))
    with pytest.raises(Corruption, match=r"the edit at byte \d+ is damaged"):
        list(read_edits(DiskFileSystem(), str(path)))


def test_a_manifest_without_its_beginning_is_corruption(tmp_path: Path) -> None:
    path = manifest_of_a_store(tmp_path)
    for kept, reason in ((8, "holds no edit"), (3, "is cut off")):
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(Corruption, match=reason):
            list(read_edits(DiskFileSystem(), str(path)))


def test_an_append_that_fails_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = DiskFileSystem().create(str(tmp_path / "file"))
    file.append(b"before ")
    write = os.pwrite

    def half(descriptor: int, data: memoryview, offset: int) -> int:
        if len(data) < 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:10], offset)

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(StorageFull):
        file.append(b"a long record")
    monkeypatch.undo()
    file.append(b"after")
    file.close()
    assert (tmp_path / "file").read_bytes() == b"before after"
