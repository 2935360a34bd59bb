"""Latencies of replicas, who of them is slow, and the budget of extra reads, whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.quorum.hedging import BURST, SHARE, SHORTEST, WINDOW, Hedging

PATIENCE = 0.25
_nodes = st.sampled_from(("n2", "n3", "n4"))
_events = st.lists(
    st.one_of(
        st.tuples(st.just("answered"), _nodes, st.floats(0.0, 60.0)),
        st.tuples(st.just("late"), _nodes, st.just(0.0)),
        st.tuples(st.just("read"), _nodes, st.just(0.0)),
    ),
    max_size=400,
)


@settings(max_examples=50)
@given(_events)
def test_delays_stay_in_bounds_and_extra_reads_in_budget(events: list[tuple[str, str, float]]) -> None:
    hedging = Hedging(PATIENCE)
    reads = extra = 0
    for what, node, seconds in events:
        if what == "answered":
            hedging.answered(node, seconds)
        elif what == "late":
            hedging.late(node)
            extra += hedging.take()
        else:
            hedging.earn()
            reads += 1
            if node in hedging.slow:
                extra += hedging.may_try(node, float(reads))
        assert SHORTEST <= hedging.delay(node) <= PATIENCE
        assert extra <= SHARE * reads + BURST


def _seen(*latencies: tuple[str, float], times: int = WINDOW) -> Hedging:
    hedging = Hedging(PATIENCE)
    for _ in range(times):
        for node, seconds in latencies:
            hedging.answered(node, seconds)
    return hedging


def test_a_peer_is_slow_by_comparison_only() -> None:
    assert not _seen(("n2", 0.5), ("n3", 0.4)).slow
    assert not _seen(("n2", 0.0001), ("n3", 0.004)).slow, "some milliseconds are nothing"
    assert _seen(("n2", 0.002), ("n3", 0.1)).slow == {"n3"}


def test_a_tail_that_one_read_in_ten_feels_makes_a_peer_slow() -> None:
    hedging = _seen(("n2", 0.002), ("n3", 0.002))
    for _ in range(WINDOW // 10):
        for seconds in (*[0.002] * 9, 0.1):
            hedging.answered("n3", seconds)
    assert hedging.slow == {"n3"}


def test_a_peer_that_does_not_answer_at_all_is_slow_before_the_first_of_its_reads_times_out() -> None:
    hedging = _seen(("n2", 0.002), ("n3", 0.002))
    for _ in range(8):
        assert not hedging.slow
        hedging.late("n3")
    assert hedging.slow == {"n3"}


def test_one_answer_in_time_shows_that_a_peer_does_not_stand_still() -> None:
    hedging = _seen(("n2", 0.002), ("n3", 0.002))
    for _ in range(20):
        for _ in range(7):
            hedging.late("n3")
        hedging.answered("n3", 0.002)
    assert not hedging.slow


def test_a_peer_that_is_quick_again_is_trusted_after_32_answers() -> None:
    hedging = _seen(("n2", 0.002), ("n3", 0.1))
    for _ in range(32):
        assert hedging.slow == {"n3"}
        hedging.answered("n3", 0.002)
    assert not hedging.slow


def test_a_slow_peer_is_tried_now_and_then() -> None:
    hedging = _seen(("n2", 0.002), ("n3", 0.1))
    tried = [millisecond for millisecond in range(1000) if hedging.may_try("n3", millisecond / 1000)]
    assert 9 <= len(tried) <= 10, "about as often as it can answer"


def test_a_read_that_cannot_wait_is_paid_for_later() -> None:
    hedging = Hedging(PATIENCE)
    for _ in range(100):
        hedging.overdraw()
    assert not hedging.take()
    for _ in range(round((BURST + 1.0) / SHARE) + 1):
        hedging.earn()
    assert hedging.take()


def test_each_extra_read_is_taken_out_of_what_was_saved_up() -> None:
    hedging = Hedging(PATIENCE, share=0.5, burst=3.0)
    assert [hedging.take() for _ in range(5)] == [True, True, True, False, False]
    hedging.earn()
    assert not hedging.take()
    hedging.earn()
    assert [hedging.take(), hedging.take()] == [True, False]
    for _ in range(100):
        hedging.earn()
    assert [hedging.take() for _ in range(4)] == [True, True, True, False], "no more is saved up"


def test_a_delay_is_the_peer_s_own_or_what_another_would_take() -> None:
    hedging = _seen(("n2", 0.010), ("n3", 0.020))
    assert hedging.delay("n2") == pytest.approx(0.015)
    assert hedging.delay("n3") == pytest.approx(0.030), "three times the quickest"
    hedging = _seen(("n2", 0.004), ("n3", 0.0121))
    assert hedging.slow == {"n3"}
    assert hedging.delay("n3") == pytest.approx(0.01815), "a slow one is asked when nobody else is left"
    assert hedging.delay("nobody known") == pytest.approx(0.012)
    assert Hedging(PATIENCE).delay("nobody known") == PATIENCE


def test_a_slow_peer_is_not_tried_without_a_budget() -> None:
    hedging = _seen(("n2", 0.002), ("n3", 0.1))
    while hedging.take():
        pass
    assert not hedging.may_try("n3", 1000.0)
    for _ in range(round(1 / SHARE) + 1):
        hedging.earn()
    assert hedging.may_try("n3", 1000.0)
    assert not hedging.may_try("n3", 1000.05), "not before it could have answered"
