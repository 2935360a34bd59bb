"""The libraries that the engine is made of, beside those that it could be made of."""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import lz4.block
import mmh3
import msgpack
import msgspec
import rbloom
from pybloom_live import BloomFilter
from rich.console import Console
from rich.table import Table
from sortedcontainers import SortedDict

from bench.engine import data
from kvstore.lsm.block import DataBlock, encode_entries, seal, unseal
from kvstore.lsm.memtable import Memtable

_ROUNDS = 5
_KEYS = 50_000
_CONSOLE = Console(width=150)


def _seconds(work: Callable[[], object]) -> float:
    """The median of some rounds."""
    took = []
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        work()
        took.append(time.perf_counter() - begin)
    return median(took)


def compare(directory: Path) -> None:
    """Print all comparisons."""
    _filters()
    _records()
    _memtables()
    _compressions(directory)


def _filters() -> None:
    keys = [data.key(i) for i in range(_KEYS)]
    absent = [data.absent_key(i) for i in range(_KEYS)]
    shown = Table("filter of 50,000 keys, 1%", "add us", "test us", "bytes", "false positives")

    def row(name: str, make: Callable[[], Any], size: Callable[[Any], int]) -> None:
        filled = make()
        for key in keys:
            filled.add(key)
        fresh = make()
        add = _seconds(lambda: [fresh.add(key) for key in keys]) / _KEYS
        test = _seconds(lambda: [key in filled for key in absent]) / _KEYS
        false = sum(key in filled for key in absent) / _KEYS
        shown.add_row(name, f"{add * 1e6:.2f}", f"{test * 1e6:.2f}", f"{size(filled):,}", f"{false:.2%}")

    row("pybloom-live", lambda: BloomFilter(_KEYS, 0.01), lambda made: len(made.bitarray) // 8)
    row(
        "rbloom over mmh3.hash128",
        lambda: rbloom.Bloom(_KEYS, 0.01, lambda key: mmh3.hash128(key, signed=True)),
        lambda made: int(made.size_in_bits) // 8,
    )
    _CONSOLE.print(shown)


def _records() -> None:
    shown = Table("log record of one batch", "entries", "encode us", "decode us", "bytes")
    decoder = msgspec.msgpack.Decoder(list[list[tuple[bytes, bytes | None]]])
    ways: list[tuple[str, Callable[[Any], bytes], Callable[[bytes], Any]]] = [
        ("msgpack", msgpack.packb, msgpack.unpackb),
        ("msgspec", msgspec.msgpack.Encoder().encode, decoder.decode),
    ]
    for size in (1, 100):
        batches = [list(data.entries(0, size, in_order=True))]
        for name, encode, decode in ways:
            encoded = encode(batches)
            encoding = _seconds(lambda: [encode(batches) for _ in range(2000)]) / 2000  # noqa: B023
            decoding = _seconds(lambda: [decode(encoded) for _ in range(2000)]) / 2000  # noqa: B023
            shown.add_row(
                name, str(size), f"{encoding * 1e6:.2f}", f"{decoding * 1e6:.2f}", f"{len(encoded):,}"
            )
    _CONSOLE.print(shown)


def _memtables() -> None:
    entries = list(data.entries(0, _KEYS, in_order=False))

    def fill_sorted() -> Any:
        made = SortedDict()
        for key, value in entries:
            made[key] = value
        return made

    def fill_ours() -> Memtable:
        made = Memtable()
        for entry in entries:
            made.apply([entry], 0)
        return made

    shown = Table("memtable of 50,000 entries", "insert us", "first scan us an entry", "get us")
    keys = [key for key, _ in entries]
    ways: list[tuple[str, Callable[[], Any], Callable[[Any], object]]] = [
        ("SortedDict", fill_sorted, lambda made: list(made.items())),
        ("dict, sorted for scans", fill_ours, lambda made: list(made.chunks(b"", None))),
    ]
    for name, fill, scan in ways:
        made = fill()
        begin = time.perf_counter()
        scan(made)
        scanning = time.perf_counter() - begin
        inserting = _seconds(fill)
        getting = _seconds(lambda: [made.get(key, None) for key in keys])  # noqa: B023
        figures = (f"{seconds / _KEYS * 1e6:.2f}" for seconds in (inserting, scanning, getting))
        shown.add_row(name, *figures)
    _CONSOLE.print(shown)


def _compressions(directory: Path) -> None:
    """Blocks of airport records at sizes of blocks; `get` is what a read past the cache costs with each."""
    ways: list[tuple[str, Callable[[bytes], bytes], Callable[[bytes], bytes]]] = [
        ("none", bytes, bytes),
        ("lz4", lz4.block.compress, lz4.block.decompress),
        *((f"zlib {level}", _zlib(level), zlib.decompress) for level in (1, 6)),
        *_zstd(),
    ]
    shown = Table("compression", "block KiB", "size", "compress us", "decompress us", "get past the cache us")
    for kib in (4, 8, 16):
        blocks = _blocks(kib * 1024)
        raw = sum(map(len, (payload for payload, _ in blocks)))
        for name, compress, decompress in ways:
            made = [compress(payload) for payload, _ in blocks]
            path = directory / "blocks"
            path.write_bytes(b"".join(made))
            wanted = [
                (len(piece), keys[len(keys) // 3]) for piece, (_, keys) in zip(made, blocks, strict=True)
            ]
            figures = (
                _seconds(lambda: [compress(payload) for payload, _ in blocks]),  # noqa: B023
                _seconds(lambda: [decompress(piece) for piece in made]),  # noqa: B023
                _seconds(lambda: _read(path, wanted, decompress)),  # noqa: B023
            )
            per_block = (f"{seconds / len(blocks) * 1e6:.1f}" for seconds in figures)
            shown.add_row(name, str(kib), f"{sum(map(len, made)) / raw:.0%}", *per_block)
    _CONSOLE.print(shown)
    payload = _blocks(8192)[0][0]
    sealed = seal(payload)
    print(
        f"block.seal {_seconds(lambda: seal(payload)) * 1e6:.1f} us, "
        f"unseal {_seconds(lambda: unseal(sealed)) * 1e6:.1f} us"
    )


def _zlib(level: int) -> Callable[[bytes], bytes]:
    return lambda payload: zlib.compress(payload, level)


def _zstd() -> Iterable[tuple[str, Callable[[bytes], bytes], Callable[[bytes], bytes]]]:
    try:
        zstandard: Any = import_module("zstandard")
    except ImportError:
        print("zstd is left out: zstandard is not installed (make bench-engine installs it)")
        return
    decompress = zstandard.ZstdDecompressor().decompress
    for level in (-1, 1, 3):
        yield f"zstd {level}", zstandard.ZstdCompressor(level).compress, decompress


def _blocks(size: int) -> list[tuple[bytes, list[bytes]]]:
    """Payloads of data blocks, with their keys."""
    blocks: list[tuple[bytes, list[bytes]]] = []
    first = 0
    while len(blocks) < 200:
        count = max(1, size // 270)
        entries = list(data.entries(first, count, in_order=True))
        keys = [key for key, _ in entries]
        blocks.append((encode_entries(keys, [value for _, value in entries]), keys))
        first += count
    random.Random(1).shuffle(blocks)
    return blocks


def _read(path: Path, wanted: list[tuple[int, bytes]], decompress: Callable[[bytes], bytes]) -> None:
    with path.open("rb", buffering=0) as file:
        for length, key in wanted:
            if DataBlock(decompress(file.read(length))).get(key, None) is None:
                raise AssertionError("a key is missing")
