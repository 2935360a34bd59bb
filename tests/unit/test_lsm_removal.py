"""What is not needed any more is freed little by little, and never under a reader."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvstore.lsm import Engine, MemoryFileSystem, Options
from kvstore.lsm.disk import DiskFileSystem

SIZE = 1_000_000


def removed(path: Path) -> list[int]:
    """The steps in which a file is freed, in bytes."""
    steps: list[int] = []
    DiskFileSystem().remove(str(path), steps.append)
    assert not path.exists()
    return steps


def test_a_file_is_freed_in_small_steps(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(bytes(SIZE))
    steps = removed(path)
    assert len(steps) > 5
    assert SIZE * 3 / 4 < sum(steps) < SIZE
    assert removed(path) == []


def test_a_file_that_a_scan_reads_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(bytes(SIZE))
    with path.open("rb") as reader:
        assert removed(path) == []
        assert reader.read() == bytes(SIZE)


def test_a_file_that_a_checkpoint_has_too_is_left_to_it(tmp_path: Path) -> None:
    path, checkpoint = tmp_path / "table", tmp_path / "checkpoint"
    path.write_bytes(bytes(SIZE))
    os.link(path, checkpoint)
    assert removed(path) == []
    assert checkpoint.read_bytes() == bytes(SIZE)


@pytest.mark.parametrize("sealed_first", [False, True])
def test_a_flushed_memtable_is_freed_as_writes_come_but_not_under_a_snapshot(sealed_first: bool) -> None:
    engine = Engine.open(MemoryFileSystem(), "store", Options())
    content = [(b"%04d" % i, b"old") for i in range(1000)]
    engine.write(content)
    memtable = engine._segments.active.memtable
    if sealed_first:
        engine._segments.seal(engine._manifest.take_number())
    snapshot = engine.snapshot()
    engine.flush()
    for key, _ in content[:500]:
        engine.write([(key, b"new")])
    assert list(snapshot.scan()) == content
    assert len(memtable) == 1000
    snapshot.close()
    engine.write([(b"a", b"1")])
    assert 900 < len(memtable) < 1000
    for i in range(100):
        engine.write([(b"%d" % i, b"")])
    assert len(memtable) == 0
    assert engine.get(b"0999") == b"old"
    engine.close()
