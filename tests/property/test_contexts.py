"""Contexts and session tokens: what was given out is taken, for its key; nothing else is."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.contexts import (
    KEY_BYTES,
    Keyring,
    decode_context,
    decode_seen,
    encode_context,
    encode_seen,
    key_id,
    read_context,
)
from kvstore.errors import InvalidRequest, KVError, UnverifiedContext
from kvstore.versions import (
    MAX_COUNTER,
    NO_CONTEXT,
    NOTHING_SEEN,
    CausalContext,
    Dot,
    DottedContext,
    InternalKey,
    SignedContext,
)

_actors = st.text("abc.0123456789", min_size=1, max_size=12)
contexts = st.dictionaries(_actors, st.integers(1, MAX_COUNTER), max_size=6).map(
    lambda known: tuple(Dot(actor, known[actor]) for actor in sorted(known))
)
places = st.binary(max_size=20)
keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)
keyrings = st.lists(keys, min_size=1, max_size=4).map(Keyring)


@given(contexts, places, keyrings, places)
def test_a_context_fits_only_its_key(
    context: CausalContext, place: bytes, keyring: Keyring, other: bytes
) -> None:
    signed = encode_context(context, InternalKey(place), keyring)
    seen = DottedContext(context)
    assert decode_context(signed, InternalKey(place), keyring) == seen == read_context(signed)
    assert decode_context(NO_CONTEXT, InternalKey(place), keyring) == NOTHING_SEEN
    if other != place:
        with pytest.raises(InvalidRequest):
            decode_context(signed, InternalKey(other), keyring)


@given(contexts, places, keyrings, st.data())
def test_a_changed_context_is_refused_whatever_was_changed(
    context: CausalContext, place: bytes, keyring: Keyring, data: st.DataObject
) -> None:
    changed = bytearray(encode_context(context, InternalKey(place), keyring))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises((InvalidRequest, UnverifiedContext)):
        decode_context(SignedContext(bytes(changed)), InternalKey(place), keyring)


@given(contexts, places, keys, keys)
def test_a_context_of_another_cluster_cannot_be_verified(
    context: CausalContext, place: bytes, ours: bytes, theirs: bytes
) -> None:
    signed = encode_context(context, InternalKey(place), Keyring([theirs]))
    if key_id(ours) != key_id(theirs):
        with pytest.raises(UnverifiedContext):
            decode_context(signed, InternalKey(place), Keyring([ours]))


@given(contexts, places, st.lists(keys, min_size=2, max_size=4))
def test_nodes_that_have_exchanged_keys_sign_alike_and_take_what_was_signed_before(
    context: CausalContext, place: bytes, made: list[bytes]
) -> None:
    nodes = [Keyring([key]) for key in made]
    before = [encode_context(context, InternalKey(place), node) for node in nodes]
    for node in nodes:
        for key in made:
            node.add(key)
    assert len({encode_context(context, InternalKey(place), node) for node in nodes}) == 1
    for node in nodes:
        decoded = [decode_context(signed, InternalKey(place), node) for signed in before]
        assert decoded == [DottedContext(context)] * len(before)


@given(contexts, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_session_token_fits_only_its_key_and_is_no_context(
    context: CausalContext, token: int, other: int
) -> None:
    seen = encode_seen(context, token)
    assert decode_seen(seen, token) == context
    if other != token:
        with pytest.raises(InvalidRequest):
            decode_seen(seen, other)
    with pytest.raises(InvalidRequest):
        read_context(seen)


@given(st.binary(max_size=80), keyrings)
def test_random_bytes_give_only_typed_errors(data: bytes, keyring: Keyring) -> None:
    for decode in (
        read_context,
        lambda d: decode_context(d, InternalKey(b"k"), keyring),
        lambda d: decode_seen(d, 1),
    ):
        with suppress(KVError):
            decode(data)


@pytest.mark.parametrize("counter", [0, -1, MAX_COUNTER + 1, 2**63, 2**64 - 1])
def test_a_counter_beyond_its_bounds_is_refused_even_when_it_is_signed(counter: int) -> None:
    keyring = Keyring([b"k" * KEY_BYTES])
    signed = encode_context((Dot("a", counter),), InternalKey(b"place"), keyring)
    with pytest.raises(InvalidRequest):
        decode_context(signed, InternalKey(b"place"), keyring)
