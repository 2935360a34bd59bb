"""What the engine takes, and what it refuses before anything is logged: types and sizes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore.lsm import Durability, Engine, MemoryFileSystem, Options, Store


class Text(str):
    __slots__ = ()


class Raw(bytes):
    __slots__ = ()


WRONG_ENTRIES: list[Any] = [
    ("k", b"v"),
    (b"k", "v"),
    (b"k", 5),
    (None, b"v"),
    (5, b"v"),
    (b"k", Text("v")),
    (bytearray(b"k"), b"v"),
    (b"k", bytearray(b"v")),
    (memoryview(b"k"), b"v"),
    (b"k", memoryview(b"v")),
    (Raw(b"k"), b"v"),  # which the encoder of the log does not take
    (b"k", Raw(b"v")),
    (b"k", [b"v"]),
    ((b"k",), b"v"),
]
WRONG_BATCHES: list[Any] = [
    None,
    7,
    b"kv",
    "kv",
    {b"kv": b"v"},
    {b"k"},
    [b"kv"],
    [(b"k",)],
    [(b"k", b"v", b"w")],
    [()],
    [{b"k", b"v"}],
    [None],
    ((b"k", b"v"), 7),
]


def types(value: object) -> str:
    """A name that is the same in every process."""
    parts = value if isinstance(value, tuple | list) else [value]
    return f"{type(value).__name__} of " + ", ".join(type(part).__name__ for part in parts)


def good() -> dict[bytes, bytes]:
    return {b"good": b"1"}


@pytest.mark.parametrize("durability", Durability)
@pytest.mark.parametrize("entry", WRONG_ENTRIES, ids=types)
def test_what_is_not_bytes_is_refused_before_it_is_logged(
    entry: Any, durability: Durability, tmp_path: Path
) -> None:
    with Store.open(tmp_path, Options(durability=durability)) as store:
        store.put(b"good", b"1")
        with pytest.raises(TypeError, match=r"must be bytes.*, not "):
            store.put(*entry)
        with pytest.raises(TypeError, match=r"must be bytes.*, not "):
            store.write([(b"first", b"of two"), entry])
        assert dict(store.scan()) == good()
    with Store.open(tmp_path) as store:
        assert dict(store.scan()) == good()


@pytest.mark.parametrize("key", ["k", None, 5, bytearray(b"k"), Raw(b"k")], ids=types)
def test_a_key_to_delete_is_checked_too(key: Any, tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.put(b"good", b"1")
        with pytest.raises(TypeError, match="a key must be bytes, not "):
            store.delete(key)
    with Store.open(tmp_path) as store:
        assert dict(store.scan()) == good()


def test_put_does_not_delete(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.put(b"good", b"1")
        with pytest.raises(TypeError, match="a value must be bytes, not NoneType"):
            store.put(b"good", None)  # type: ignore[arg-type]
        assert dict(store.scan()) == good()


@pytest.mark.parametrize("batch", WRONG_BATCHES, ids=types)
def test_what_is_no_batch_is_refused_before_it_is_logged(batch: Any) -> None:
    fs = MemoryFileSystem()
    engine = Engine.open(fs, "data")
    engine.write([(b"good", b"1")])
    with pytest.raises(TypeError):
        engine.write(batch)
    assert engine.last_lsn == 1
    assert dict(engine.scan()) == good()
    engine.close()
    assert dict(Engine.open(fs, "data").scan()) == good()


def pairs() -> Iterator[tuple[bytes, bytes | None]]:
    yield b"a", b"1"
    yield b"b", None


@pytest.mark.parametrize(
    "batch",
    [pairs(), tuple(pairs()), [list(entry) for entry in pairs()], dict(pairs()).items(), iter(list(pairs()))],
    ids=["generator", "tuple", "lists", "items", "iterator"],
)
def test_a_batch_may_come_from_anything_that_yields_pairs(batch: Any) -> None:
    fs = MemoryFileSystem()
    engine = Engine.open(fs, "data")
    engine.write([(b"b", b"2")])
    engine.write(batch)
    assert dict(engine.scan()) == {b"a": b"1"}
    engine.close()
    assert dict(Engine.open(fs, "data").scan()) == {b"a": b"1"}


def test_a_generator_that_fails_writes_nothing() -> None:
    def failing() -> Iterator[tuple[bytes, bytes]]:
        yield b"a", b"1"
        raise RuntimeError("of the caller's")

    engine = Engine.open(MemoryFileSystem(), "data")
    with pytest.raises(RuntimeError):
        engine.write(failing())  # type: ignore[arg-type]
    assert engine.last_lsn == 0
    assert list(engine.scan()) == []


def test_a_batch_that_its_caller_changes_afterwards_is_logged_as_it_was() -> None:
    fs = MemoryFileSystem()
    engine = Engine.open(fs, "data")
    batch: list[Any] = [[b"a", b"1"]]
    engine.write(batch)
    batch[0][1] = "no bytes"
    batch.append((b"b", b"2"))
    engine.close()
    assert dict(Engine.open(fs, "data").scan()) == {b"a": b"1"}


@pytest.mark.parametrize("key", ["k", None, 5, bytearray(b"k"), memoryview(b"k"), ("k",)], ids=types)
def test_a_read_of_what_can_be_no_key_says_so(key: Any, tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, store.snapshot() as snapshot:
        store.put(b"k", b"v")
        for source in (store, snapshot):
            with pytest.raises(TypeError, match="a key must be bytes, not "):
                source.get(key)
            with pytest.raises(TypeError, match="a key must be bytes, not "):
                source.scan(key)  # at once, and not when it is read
            if key is not None:
                with pytest.raises(TypeError, match="a key must be bytes, not "):
                    source.scan(b"", key)
        with pytest.raises(TypeError, match="a key must be bytes, not "):
            store.scan_prefix(key)
        assert store.get(b"k") == b"v"
        assert not store._engine._segments.active.memtable._undos[1:], "a refused scan holds a snapshot"
