"""Bits flipped in every region of every kind of file: an error or the right answer, never a wrong one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import msgspec
import pytest

from kvstore.errors import StorageError
from kvstore.lsm import Engine, Fate, MemoryFileSystem
from kvstore.lsm.block import unseal
from kvstore.lsm.record import HEADER_BYTES
from kvstore.lsm.sstable import FOOTER, FOOTER_BYTES, Index
from tests.conftest import Exercised
from tests.crash.lsm_workload import DATA, PLANS, Ledger, batch_number

OPTIONS = replace(PLANS[0].options, tier_tables=3)
PER_REGION = 250
Region = tuple[str, str, int, int]
"""What it is called, the file, the first byte and the one behind the last."""


@dataclass
class Store:
    """The files of an engine that was not closed, with tables, sealed logs and an active one."""

    fs: MemoryFileSystem
    ledger: Ledger
    proven: int
    """A record behind this batch has nobody to vouch for it: damaged, it looks like a torn tail."""

    def flipped(self, path: str, offset: int, mask: int) -> MemoryFileSystem:
        copy = self.fs.crash(random.Random(0), Fate.ALL)
        copy.corrupt(path, offset, mask)
        return copy


def make_store() -> Store:
    fs, ledger = MemoryFileSystem(), Ledger()
    engine = Engine.open(fs, DATA, OPTIONS)
    proven = 0
    for step in range(40):
        ledger.batches.append(batch_number(step))
        engine.write(ledger.batches[-1])
        if step % 2:
            proven = engine.durable_lsn
            engine.sync()
        if step in (15, 30):
            engine.flush()
    return Store(fs, ledger, proven)


# where what lies


def regions(fs: MemoryFileSystem) -> Iterator[Region]:
    for name in fs.list(DATA):
        path = f"{DATA}/{name}"
        data = fs.open(path).read(0, fs.size(path))
        kind = "manifest" if name.startswith("MANIFEST") else name[-3:]
        if find := {"manifest": _of_records, "wal": _of_records, "sst": _of_table}.get(kind):
            yield from ((f"{kind} {region}", path, a, b) for region, a, b in find(data))
        elif name == "CURRENT":
            yield "CURRENT", path, 0, len(data)


def _of_records(data: bytes) -> Iterator[tuple[str, int, int]]:
    yield "header", 0, 8
    at = 8
    while at < len(data):
        begin = at + HEADER_BYTES
        end = begin + int.from_bytes(data[at : at + 4], "little")
        yield "record header", at, begin
        yield "record payload", begin, end
        at = end


def _of_table(data: bytes) -> Iterator[tuple[str, int, int]]:
    footer = len(data) - FOOTER_BYTES
    a, b, c, d, e, f = FOOTER.unpack_from(data, footer)
    index = msgspec.msgpack.decode(unseal(data[c : c + d]), type=Index)
    for offset, length in zip(index.offsets, index.lengths, strict=True):
        yield "data block", offset, offset + length
    yield "filter", a, a + b
    yield "index", c, c + d
    yield "properties", e, e + f
    yield "footer", footer, len(data)


# what is answered


def outcome(store: Store, fs: MemoryFileSystem) -> str:
    """`error`, `right` or `torn tail`; raises AssertionError when any answer is wrong."""
    expected = store.ledger.after(len(store.ledger.batches))
    try:
        engine = Engine.open(fs, DATA, OPTIONS)
    except StorageError:
        return "error"
    if engine.last_lsn < len(store.ledger.batches):
        assert engine.last_lsn >= store.proven, f"only {engine.last_lsn} batches, and no error"
        expected = store.ledger.after(engine.last_lsn)
        assert dict(engine.scan()) == expected
        return "torn tail"
    answers = [
        _same(lambda: list(engine.scan()), sorted(expected.items())),
        _same(lambda: list(engine.scan(reverse=True)), sorted(expected.items(), reverse=True)),
        *(_same(lambda key=key: engine.get(key), expected.get(key)) for key in KEYS),  # type: ignore[misc]
    ]
    return "right" if all(answers) else "error"


KEYS = [b"step", b"never", *(b"key-%02d" % i for i in range(40))]


def _same(read: Callable[[], object], expected: object) -> bool:
    """Whether the answer came; False for an error."""
    try:
        answer = read()
    except StorageError:
        return False
    assert answer == expected, f"a wrong answer: {answer!r} instead of {expected!r}"
    return True


def flips(places: list[Region]) -> Iterator[tuple[str, int, int]]:
    """A bit of each byte, and all of them where there are few bytes; spread over what is too large."""
    offsets = [(path, offset) for _, path, begin, end in places for offset in range(begin, end)]
    bits = 8 if len(offsets) * 4 <= PER_REGION else 1
    step = max(1, len(offsets) * bits // PER_REGION)
    for i, (path, offset) in enumerate(offsets[::step]):
        for bit in range(bits):
            yield path, offset, 1 << (bit if bits == 8 else (i * 5) % 8)


def check_region(region: str) -> Counter[str]:
    store = make_store()
    places = [place for place in regions(store.fs) if place[0] == region]
    assert places
    return Counter(outcome(store, store.flipped(*flip)) for flip in flips(places))


REGIONS = sorted({region for region, *_ in regions(make_store().fs)})


def test_no_byte_is_left_out() -> None:
    store = make_store()
    found = sorted((path, begin, end) for _, path, begin, end in regions(store.fs))
    sizes = {path: store.fs.size(path) for path, _, _ in found}
    assert sum(end - begin for _, begin, end in found) == sum(sizes.values())
    assert {path[-3:] for path in sizes} >= {"sst", "wal"}
    assert set(store.fs.list(DATA)) - {path.removeprefix(f"{DATA}/") for path in sizes} == {"LOCK"}
    assert len(REGIONS) == 12


@pytest.mark.parametrize("region", REGIONS)
def test_a_flipped_bit_gives_an_error_or_the_right_answer(region: str, exercised: Exercised) -> None:
    outcomes = check_region(region)
    for name, count in outcomes.items():
        exercised(f"bits flipped in {region}: {name}", count)
    assert outcomes.total() >= 50
    # a damaged filter costs time and nothing else
    assert set(outcomes) <= ({"right"} if region == "sst filter" else {"right", "error", "torn tail"})
    assert region == "sst filter" or outcomes["error"]
    assert region.startswith("wal record") or not outcomes["torn tail"]
