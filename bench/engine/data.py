"""The entries that all engines are given: airport records as JSON, under keys that sort."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache

Entry = tuple[bytes, bytes]

_STRIDE = 7_368_787
"""A prime: multiples of it go through all numbers below a smaller count, in no order."""


@cache
def _records() -> list[bytes]:
    import airportsdata

    airports = airportsdata.load("ICAO").values()
    return [json.dumps(airport, separators=(",", ":")).encode()[1:] for airport in airports]


def key(number: int) -> bytes:
    """The key of the entry of that number."""
    return b"airport/%010d" % number


def absent_key(number: int) -> bytes:
    """A key that is not there, right behind one that is."""
    return b"airport/%010d-" % number


def value(number: int) -> bytes:
    """Some 250 bytes of JSON, another for each number."""
    records = _records()
    return b'{"id":%d,%b' % (number, records[number * 31 % len(records)])


def entries(first: int, count: int, *, in_order: bool) -> Iterator[Entry]:
    """The entries [first, first + count), in order of their keys or in none."""
    for i in range(count):
        number = first + (i if in_order else i * _STRIDE % count)
        yield key(number), value(number)


def batches(found: Iterator[Entry], size: int) -> Iterator[list[Entry]]:
    """Entries, so many at a time."""
    batch: list[Entry] = []
    for entry in found:
        batch.append(entry)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def numbers(count: int, below: int, seed: int) -> list[int]:
    """Random entries."""
    chosen = random.Random(seed)
    return [chosen.randrange(below) for _ in range(count)]
