"""Damage of every kind that can be done to bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_WIDTHS = 1, 2, 4, 8
_MARKERS = bytes.fromhex("808fa0bfc0c4c6c7c9cacbcccfd0d3d9dbdcdddedf")
"""Where msgpack says what follows, and how long it is."""

Mutation = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def flip_bits(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def truncate(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def cut_out(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    first, last = _slice(rng, data)
    del data[first:last]


def duplicate(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    first, last = _slice(rng, data)
    data[last:last] = data[first:last] * rng.choice((1, 1, 3))


def splice(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    """The front of one and the back of another."""
    other = rng.choice(seeds)
    data[rng.randrange(len(data) + 1) :] = other[rng.randrange(len(other) + 1) :]


def insert_noise(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.randrange(1, 9))


def extreme_number(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    """Where a length may be: nothing, the most, about the most of its signed sort, about what is there."""
    width = rng.choice(_WIDTHS)
    top = 1 << 8 * width
    number = rng.choice((0, 1, top - 1, top - 2, top // 2, top // 2 - 1, len(data), len(data) * 2, top // 16))
    at = rng.randrange(len(data) + 1)
    data[at : at + width] = (number % top).to_bytes(width, rng.choice(("little", "big")))


def marker(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice(_MARKERS)


def noise(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    data[:] = rng.randbytes(rng.randrange(64))


def _slice(rng: random.Random, data: bytearray) -> tuple[int, int]:
    first = rng.randrange(len(data) + 1)
    return first, min(len(data), first + rng.randrange(1, 33))


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    truncate,
    cut_out,
    duplicate,
    splice,
    insert_noise,
    extreme_number,
    extreme_number,
    marker,
    noise,
)
LARGEST = 1 << 16


def mutated(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of `seeds` after up to four mutations; one in thirty-two is left whole."""
    data = bytearray(rng.choice(seeds))
    if rng.randrange(32):
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            rng.choice(MUTATIONS)(rng, data, seeds)
    return bytes(data[:LARGEST])
