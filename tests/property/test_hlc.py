"""Hybrid logical clocks: after all that was seen, and never far from the wall clock."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from kvstore.hlc import MAX_TIME, HybridClock, wall_time

HOUR = 3_600_000
START = 1_700_000_000_000
walls = st.integers(START - 2 * HOUR, START + 2 * HOUR)
seen = st.integers(0, (START + 10_000 * HOUR) << 16)


@given(st.lists(st.tuples(walls, st.just(0) | seen), min_size=1, max_size=20), st.integers(0, HOUR))
def test_a_tick_is_after_what_was_seen_and_carries_the_clock_no_further_than_the_drift(
    steps: list[tuple[int, int]], drift: int
) -> None:
    ahead = []
    clock = HybridClock(drift, lambda: ahead.append(1))
    for wall, time in steps:
        assert clock.tick(wall, time) > time
        after = clock.tick(wall)
        assert wall <= wall_time(after) <= wall + drift + 1, "the next write of another key"
    assert len(ahead) == sum(time > (wall + drift) << 16 for wall, time in steps)


@given(st.lists(walls, min_size=1, max_size=20))
@example([START + 2 * HOUR, START + 2 * HOUR, START - 2 * HOUR])
def test_times_grow_although_the_wall_clock_goes_back_within_bounds(steps: list[int]) -> None:
    # a millisecond more than the walls are apart: the second time of one millisecond is a little after it
    clock = HybridClock(4 * HOUR + 1, lambda: None)
    times = [clock.tick(wall) for wall in steps]
    assert times == sorted(set(times))


@given(walls, seen)
def test_what_was_observed_is_followed_within_bounds(wall: int, time: int) -> None:
    clock = HybridClock(HOUR, lambda: None)
    clock.observe(wall, time)
    now = clock.tick(wall)
    if time <= (wall + HOUR) << 16:
        assert now > time
    else:
        assert now == wall << 16


@given(st.lists(st.tuples(st.integers(-(2**45), 2**63), st.integers(0, MAX_TIME)), min_size=1, max_size=10))
def test_whatever_the_clock_says_and_whatever_was_seen_a_time_is_one_that_other_nodes_take(
    steps: list[tuple[int, int]],
) -> None:
    clock = HybridClock(HOUR, lambda: None)
    for wall, time in steps:
        assert 1 <= clock.tick(wall, time) <= MAX_TIME
        clock.observe(wall, time)
