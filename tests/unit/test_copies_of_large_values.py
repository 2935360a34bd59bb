"""How often a large value is copied when it is read: each copy holds the loop, and takes memory beside it."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable

from kvstore.config import MIB
from kvstore.lsm.block import seal, unseal
from kvstore.versions import Dot, Sibling, Version, check_version, decode_version, encode_version


def peak(act: Callable[[], object]) -> int:
    """The most bytes that were allocated at a time."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_stored_block_that_is_not_compressed_is_copied_once() -> None:
    block = seal(os.urandom(8 * MIB))
    assert peak(lambda: unseal(block)) < 8.1 * MIB


def test_a_version_is_copied_once_when_it_is_decoded() -> None:
    dot = Dot("n1", 1)
    version = encode_version(Version((dot,), (Sibling(dot, bytes(8 * MIB)),)))
    assert peak(lambda: decode_version(version)) < 8.1 * MIB


def test_a_version_is_copied_once_when_it_is_encoded_and_not_at_all_when_it_is_checked() -> None:
    dots = Dot("n1", 1), Dot("n2", 1)
    version = Version(dots, tuple(Sibling(dot, bytes(4 * MIB)) for dot in dots))
    assert peak(lambda: encode_version(version)) < 8.1 * MIB
    encoded = encode_version(version)
    assert peak(lambda: check_version(encoded)) < 0.1 * MIB
