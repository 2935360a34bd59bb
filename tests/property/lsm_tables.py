"""Entries and layouts of tables for the tests of the engine's parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from hypothesis import strategies as st

from kvstore.lsm.merge import Chunk

Entry = tuple[bytes, bytes | None]

KEYS = st.binary(max_size=3)
VALUES = st.none() | st.binary(max_size=6)
CONTENTS = st.dictionaries(KEYS, VALUES, max_size=40)
FULL_CONTENTS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=40)
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def chunked(content: dict[bytes, bytes | None], sizes: list[int], reverse: bool = False) -> Iterator[Chunk]:
    """A sorted run of the content, in chunks of these sizes over and over; from the last with `reverse`."""
    keys = sorted(content)
    cuts, turn = [0], 0
    while cuts[-1] < len(keys):
        cuts.append(min(len(keys), cuts[-1] + sizes[turn % len(sizes)]))
        turn += 1
    parts = [keys[a:b] for a, b in pairwise(cuts)]
    for part in reversed(parts) if reverse else parts:
        yield list(part), [content[key] for key in part]


def entries(chunks: Iterable[Chunk], reverse: bool = False) -> list[Entry]:
    """What the chunks hold, in the order in which it is met; each is ascending in itself, and not empty."""
    found: list[Entry] = []
    for keys, values in chunks:
        assert keys
        assert keys == sorted(set(keys))
        found += list(zip(keys, values, strict=True))[:: -1 if reverse else 1]
    return found


def within(
    content: dict[bytes, bytes | None], start: bytes, end: bytes | None, reverse: bool = False
) -> list[Entry]:
    """The entries of [start, end) in order."""
    keys = [key for key in content if start <= key and (end is None or key < end)]
    return [(key, content[key]) for key in sorted(keys, reverse=reverse)]
