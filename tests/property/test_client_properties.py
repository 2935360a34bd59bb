"""Properties of the client's parts: what may be repeated, how calls are put into frames."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.client.core.calls import Calls
from kvstore.client.core.retry import may_retry, pause
from kvstore.client.core.waiter import Answer
from kvstore.client.errors import PartialFailure
from kvstore.client.results import Stored
from kvstore.config import FRAME_BYTES, BucketSettings
from kvstore.errors import (
    Corruption,
    InternalError,
    InvalidRequest,
    KVError,
    NoNodeAvailable,
    Outcome,
    Overloaded,
    ReadTimeout,
    StaleRing,
    StorageFull,
    TooManySiblings,
    Unavailable,
    WriteTimeout,
)
from kvstore.protocol import client
from kvstore.protocol.client import WriteRequest
from kvstore.versions import NO_CONTEXT
from kvstore.wire.session import decode_calls
from tests.plain import Delete, Get, Put

small = st.integers(0, 5)
errors: st.SearchStrategy[KVError] = st.one_of(
    st.builds(InvalidRequest, st.text(), st.text()),
    st.builds(Unavailable, small, small),
    st.builds(ReadTimeout, small, small),
    st.builds(WriteTimeout, small, small),
    st.builds(Overloaded, st.floats(0, 3)),
    st.builds(TooManySiblings, small, small),
    st.builds(StaleRing, small),
    st.builds(NoNodeAvailable, st.just({"a:1": "gone"}), st.sampled_from(Outcome)),
    st.builds(Corruption, st.text(), st.text()),
    st.builds(StorageFull, st.text()),
    st.builds(InternalError, st.text()),
)


@given(errors, st.sampled_from([Put("b", b"k", b"v"), Delete("b", b"k")]))
def test_a_write_that_may_be_applied_is_never_repeated(error: KVError, request: WriteRequest) -> None:
    if error.outcome is Outcome.UNKNOWN:
        assert not may_retry(request, error, 1)


@given(errors)
def test_what_is_not_retryable_is_not_repeated(error: KVError) -> None:
    assert may_retry(Get("b", b"k"), error, 1) == error.retryable


@given(st.integers(3, 100_000), errors)
def test_only_time_bounds_what_is_refused_for_a_while(attempt: int, error: KVError) -> None:
    assert may_retry(Get("b", b"k"), error, attempt, 3) == isinstance(error, StaleRing | Overloaded)
    assert not may_retry(Get("b", b"k"), error, 1, 1)


@given(st.integers(1, 100_000), errors, st.randoms(use_true_random=False))
def test_pauses_are_bounded_and_respect_the_node(attempt: int, error: KVError, rng: random.Random) -> None:
    asked = error.retry_after if isinstance(error, Overloaded) else 0.0
    assert asked < pause(attempt, error, rng.uniform) <= 1.5 * asked + 1.0


@given(
    st.dictionaries(st.text(min_size=1), errors, min_size=1),
    st.dictionaries(st.text(), st.just(Stored(NO_CONTEXT, 1))),
)
def test_partial_failures_are_unknown_if_one_is(
    failed: dict[str, KVError], succeeded: dict[str, Stored]
) -> None:
    error = PartialFailure(succeeded, failed)
    assert (error.outcome is Outcome.UNKNOWN) == (Outcome.UNKNOWN in {e.outcome for e in failed.values()})
    assert not error.retryable


class Nobody:
    """Waits for the reply to a call."""

    def left(self) -> bool:
        return False

    def on_answer(self, answer: Answer, now: float) -> None:
        pass


sizes = st.one_of(st.integers(0, 200), st.integers(900_000, 5_000_000))


@settings(max_examples=30, deadline=None)
@given(st.lists(sizes, min_size=1, max_size=30))
def test_frames_carry_every_call_once_in_order_within_the_limit(lengths: list[int]) -> None:
    calls = Calls("a:1", BucketSettings, lambda _: None)
    for i, length in enumerate(lengths):
        calls.submit(Put("b", str(i).encode(), bytes(length)), 60.0, 1, Nobody())
    sent: list[tuple[bytes, int]] = []
    while frame := calls.take_frame(0.0):
        _, _, puts = decode_calls(frame)
        assert len(frame) <= FRAME_BYTES or len(puts) == 1
        sent += [(put.key, len(put.value)) for _, put in puts if isinstance(put, client.Put)]
    assert sent == [(str(i).encode(), length) for i, length in enumerate(lengths)]
