"""The laws of versions, on histories made as a cluster makes them."""

from __future__ import annotations

import random
from contextlib import suppress

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore import versions
from kvstore.errors import Corruption
from kvstore.versions import (
    EMPTY,
    CausalContext,
    Dot,
    EncodedVersion,
    Sibling,
    Version,
    check_version,
    covers,
    decode_version,
    encode_version,
    join,
    reconcile,
    reconcile_lww,
    write,
)


def history(seed: int, replicas: int = 3, steps: int = 14) -> list[Version]:
    """The versions that replicas of one key may hold, each minting dots of its own."""
    rng = random.Random(seed)
    held = [EMPTY] * replicas
    counters = [0] * replicas
    for _ in range(steps):
        i, j = rng.randrange(replicas), rng.randrange(replicas)
        if rng.random() < 0.5:
            held[i] = reconcile(held[i], held[j])
            continue
        seen = rng.choice((EMPTY, *held)).context
        counters[i] += 1
        value = None if rng.random() < 0.2 else rng.randbytes(2)
        held[i] = write(held[i], seen, Sibling(Dot(f"n{i}", counters[i]), value, rng.randrange(9)))
    return held


VERSIONS = st.integers(0, 10**6).map(history)


@given(VERSIONS)
def test_reconcile_is_commutative_associative_and_idempotent(held: list[Version]) -> None:
    a, b, c = held
    assert reconcile(a, b) == reconcile(b, a)
    assert reconcile(a, reconcile(b, c)) == reconcile(reconcile(a, b), c)
    assert reconcile(a, a) == a
    assert reconcile(a, reconcile(a, b)) == reconcile(a, b)
    assert reconcile(a, EMPTY) == a


SIBLINGS = st.builds(
    Sibling,
    st.builds(Dot, st.sampled_from("ab"), st.integers(1, 2)),
    st.none() | st.sampled_from([b"", b"x", b"y"]),
    st.integers(0, 2),
    st.integers(0, 1),
    st.sampled_from(["", "t"]),
)
FORGED = st.builds(
    lambda siblings, more: Version(
        tuple(
            Dot(actor, 2 if more else max(d.counter for d in siblings if d.actor == actor))
            for actor in sorted({dot.actor for dot in siblings})
        ),
        tuple(siblings[dot] for dot in sorted(siblings)),
    ),
    st.dictionaries(SIBLINGS.map(lambda s: s.dot), SIBLINGS, max_size=3).map(
        lambda found: {dot: msgspec.structs.replace(sibling, dot=dot) for dot, sibling in found.items()}
    ),
    st.booleans(),
)
"""Versions of which two may have different siblings under one dot: somebody has forged one."""


@given(FORGED, FORGED, FORGED)
def test_even_of_siblings_under_one_dot_all_replicas_keep_the_same(
    a: Version, b: Version, c: Version
) -> None:
    for rule in (reconcile, reconcile_lww):
        assert rule(a, b) == rule(b, a)
        assert rule(a, rule(b, c)) == rule(rule(a, b), c)
        assert rule(a, rule(a, b)) == rule(a, b)
        encoded = encode_version(rule(a, b))
        assert check_version(encoded) == decode_version(encoded).context
        assert decode_version(encoded) == rule(a, b)


def test_of_two_siblings_under_one_dot_a_value_goes_before_a_tombstone() -> None:
    dot = Dot("a", 1)
    value, gone = (Version((dot,), (Sibling(dot, each, time),)) for each, time in ((b"v", 1), (None, 2)))
    assert reconcile(value, gone) == reconcile(gone, value) == value


@given(VERSIONS)
def test_reconcile_lww_obeys_the_same_laws_and_never_leaves_nothing(held: list[Version]) -> None:
    a, b, c = (reconcile_lww(EMPTY, version) if version.siblings else EMPTY for version in held)
    assert reconcile_lww(a, b) == reconcile_lww(b, a)
    assert reconcile_lww(a, a) == a
    if a.siblings and b.siblings and c.siblings:
        one = reconcile_lww(reconcile_lww(a, b), c)
        assert one == reconcile_lww(a, reconcile_lww(b, c))
        latest = max((*a.siblings, *b.siblings, *c.siblings), key=lambda s: (s.time, s.dot))
        assert one.siblings == (latest,)


def test_a_write_through_a_slow_clock_leaves_something_in_an_lww_bucket() -> None:
    first = write(EMPTY, (), Sibling(Dot("a", 1), b"one", 50))
    other = write(EMPTY, (), Sibling(Dot("d", 1), b"two", 45))
    late = write(EMPTY, first.context, Sibling(Dot("c", 1), b"three", 40))
    both = reconcile_lww(reconcile_lww(first, other), late)
    assert reconcile_lww(both, reconcile_lww(late, other)).siblings == first.siblings


@given(VERSIONS)
def test_a_sibling_is_covered_by_its_own_context_and_equal_versions_encode_equally(
    held: list[Version],
) -> None:
    for version in held:
        assert all(covers(version.context, sibling.dot) for sibling in version.siblings)
        assert list(version.context) == sorted(version.context)
        assert decode_version(encode_version(version)) == version
    one, other = reconcile(held[0], held[1]), reconcile(held[1], held[0])
    assert encode_version(one) == encode_version(other)


@given(VERSIONS, st.binary(max_size=4))
def test_a_write_keeps_what_its_context_did_not_see(held: list[Version], value: bytes) -> None:
    current, seen = held[0], held[1].context
    after = write(current, seen, Sibling(Dot("new", 1), value))
    unseen = {s.dot for s in current.siblings if not covers(seen, s.dot)}
    assert {s.dot for s in after.siblings} == unseen | {Dot("new", 1)}
    assert after.context == join(join(current.context, seen), (Dot("new", 1),))


@given(VERSIONS)
def test_the_bytes_are_plain_msgpack(held: list[Version]) -> None:
    for version in held:
        context, siblings = msgpack.unpackb(encode_version(version)[1:])
        assert context == [list(dot) for dot in version.context]
        assert [(tuple(s[0]), s[1]) for s in siblings] == [(s.dot, s.value) for s in version.siblings]


@given(VERSIONS, st.data())
def test_damaged_bytes_give_a_typed_error_or_another_valid_version(
    held: list[Version], data: st.DataObject
) -> None:
    encoded = bytearray(encode_version(held[0]))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(Corruption):
        decode_version(EncodedVersion(bytes(encoded)))


@given(st.binary(max_size=60))
def test_random_bytes_give_only_typed_errors(data: bytes) -> None:
    for decode in (decode_version, check_version):
        with suppress(Corruption):
            decode(EncodedVersion(data))


def _raw(*context: str, siblings: str = "", counter: int = 1) -> bytes:
    """A version of these actors, in this order, whose siblings are of some of them."""
    dots = tuple(Dot(actor, 1) for actor in context)
    return encode_version(Version(dots, tuple(Sibling(Dot(actor, counter), b"v") for actor in siblings)))


@pytest.mark.parametrize(
    ("data", "right"),
    [
        (_raw("a"), True),
        (_raw("a", "b", "c", siblings="abc"), True),
        (_raw("a", "b", "c", siblings="ac"), True),
        (_raw("a", "c", "b", siblings="a"), False),
        (_raw("c", "a", "b", siblings="a"), False),
        (_raw("b", "a", siblings="b"), False),
        (_raw("a", "a", siblings="a"), False),
        (_raw("a", "b", "c", siblings="acb"), False),
        (_raw("a", "b", "c", siblings="cab"), False),
        (_raw("a", "b", "c", siblings="aab"), False),
        (_raw("a", "b", siblings="c"), False),
        (_raw("a", "b", siblings="ab"), True),
        (_raw("b", "a", siblings="ba"), False),
        (_raw("a", "b", siblings="ac"), False),
        (_raw("a", siblings="a", counter=2), False),
        (_raw("a", "b", siblings="b", counter=2), False),
        (_raw("a", siblings="a").replace(b"\xa1a\x01", b"\xa1a\xcc\x01"), False),
        (_raw("a", "b", siblings="a").replace(b"\xa1b\x01", b"\xa1b\xcc\x01"), False),
    ],
)
def test_what_another_has_made_must_be_in_the_one_form_that_equal_versions_have(
    data: bytes, right: bool
) -> None:
    version = decode_version(EncodedVersion(data))
    if right:
        assert check_version(EncodedVersion(data)) == version.context
        assert encode_version(version) == data
    else:
        with pytest.raises(Corruption):
            check_version(EncodedVersion(data))


@given(VERSIONS, st.data())
def test_large_versions_have_the_same_bytes_and_are_checked_as_small_ones_are(
    held: list[Version], data: st.DataObject
) -> None:
    encoded = bytearray(encode_version(held[0]))
    damaged = bytearray(encoded)
    for _ in range(data.draw(st.integers(0, 2))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    right = _context(damaged)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(versions, "_LARGE", -1)
        assert encode_version(held[0]) == bytes(encoded)
        assert _context(damaged) == right


def _context(encoded: bytearray) -> CausalContext | None:
    """What `check_version` says; None: it is not in order."""
    try:
        return check_version(EncodedVersion(bytes(encoded)))
    except Corruption:
        return None


@pytest.mark.parametrize("length", [0, 31, 255, 256, 65_535, 65_536, 1 << 20])
@pytest.mark.parametrize("siblings", [1, 15, 16])
def test_the_pieces_of_a_large_version_are_what_the_encoder_writes(length: int, siblings: int) -> None:
    dots = tuple(Dot(f"a{i:02}", 1) for i in range(siblings))
    held = [Sibling(dot, bytes(length)) for dot in dots[:-1]]
    version = Version(dots, (*held, Sibling(dots[-1], bytes(1 << 17), 1 << 40, 1 << 50, "text/plain")))
    encoded = encode_version(version)
    assert encoded == versions.FORMAT + msgspec.msgpack.encode(version)
    assert check_version(encoded) == dots


def test_a_large_version_that_is_not_canonical_is_refused() -> None:
    encoded = _raw("a", siblings="a")
    large = encoded.replace(b"\xc4\x01v", b"\xc6\x00\x02\x00\x00" + bytes(1 << 17))
    assert check_version(EncodedVersion(large)) == (Dot("a", 1),)
    for wrong in (
        large.replace(b"\xa1a\x01", b"\xa1a\xcc\x01"),  # a longer number, before the value
        large[:-2] + b"\xcc\x00" + large[-1:],  # and behind it
        large + b"\x00",
    ):
        with pytest.raises(Corruption):
            check_version(EncodedVersion(wrong))


@pytest.mark.parametrize("byte", [0, 2, 255])
def test_another_format_is_not_taken_for_this_one(byte: int) -> None:
    for decode in (decode_version, check_version):
        with pytest.raises(Corruption, match="format"):
            decode(EncodedVersion(bytes([byte]) + _raw("a", siblings="a")[1:]))


def test_a_late_tombstone_does_not_erase_a_recreated_key() -> None:
    """BUGS 3: the doomstone."""
    first = write(EMPTY, (), Sibling(Dot("a", 1), b"old"))
    deleted = write(first, first.context, Sibling(Dot("a", 2), None))
    recreated = write(EMPTY, (), Sibling(Dot("b", 1), b"new"))
    after = reconcile(recreated, deleted)
    assert [sibling.value for sibling in after.visible(0)] == [b"new"]
    assert after.visible(0) == reconcile(after, first).visible(0)


def test_expiry_is_absolute_so_replicas_agree() -> None:
    """BUGS 20."""
    version = write(EMPTY, (), Sibling(Dot("a", 1), b"v", expiry=1000))
    assert (len(version.visible(999)), len(version.visible(1000))) == (1, 0)
