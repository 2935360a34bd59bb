"""Work that takes long leaves the loop to others in between: pages of scans, and puts of one frame."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from kvstore.frames.incoming import Rest
from kvstore.frames.turn_ends import TurnEnds
from kvstore.protocol.client import Get, Put
from kvstore.protocol.scan import Scanned
from kvstore.server import session, session_gets
from kvstore.server.large_replies import LargeReplies
from kvstore.server.scans import Scans
from kvstore.server.session import ClientStream
from kvstore.server.session_gets import Arrived
from kvstore.server.turns import TURN, Turns
from kvstore.server.unread import UnreadReplies
from kvstore.v1 import client_pb2 as pb
from kvstore.versions import BucketName, UserKey
from tests.unit.memory_client import Play
from tests.unit.stepped_loop import stepped

WORK = 0.1
"""Seconds of the loop that a page takes."""
TAKES = 0.002
"""And a put."""


def test_pages_of_many_scans_come_seldomer_than_those_of_one(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        clock, begun = asyncio.get_running_loop().time, list[float]()
        worked = iter(WORK * each for each in range(100))
        monkeypatch.setattr("time.thread_time", partial(next, worked))
        waiting: Any = SimpleNamespace()
        pages = Scans(waiting)

        async def made(_scan: object, _left: float) -> Scanned:
            begun.append(clock())
            return Scanned((), b"")

        monkeypatch.setattr(pages, "_made", made)
        page = partial(pages.page, pb.ScanRequest(bucket="b"), float("inf"))
        await page()
        await page()
        await asyncio.gather(page(), page(), page())
        pauses = [after - before for before, after in pairwise(begun)]
        assert pauses == pytest.approx([2 * WORK, 2 * WORK, 8 * WORK, 8 * WORK])

    play(scenario())


async def done(rests: Iterable[Rest]) -> None:
    """Do what several sessions have left to do with what they have taken."""
    await asyncio.gather(*(rest() for rest in rests if rest is not None))


class Sessions:
    """Streams of clients at a node on which a put takes 2 ms; `begun` has how many began in which turn."""

    def __init__(self, count: int) -> None:
        self.begun: list[tuple[int, int]] = []
        executor = SimpleNamespace(begin=self._begin, leave=lambda _client: None)
        node = SimpleNamespace(strained=False)
        driver: Any = SimpleNamespace(executor=executor, node=node, turn_ends=TurnEnds())
        context: Any = SimpleNamespace(peer=lambda: "ipv4:127.0.0.1:1")
        replies, large, turns = UnreadReplies(), LargeReplies(), Turns()
        self.streams = [ClientStream(driver, context, replies, large, turns) for _ in range(count)]

    def _begin(self, _client: object, _principal: object, requests: list[object]) -> None:
        self.begun.append((stepped().steps, len(requests)))
        stepped().now += TAKES * len(requests)

    async def put(self, count: int) -> None:
        """A frame with so many on each stream."""
        await self._call(Put(BucketName("b"), UserKey(b"k"), b"v"), count)

    async def get(self, count: int) -> None:
        """A frame with so many on each stream."""
        await self._call(Get(BucketName("b"), UserKey(b"k")), count)

    async def _call(self, request: Put | Get, count: int) -> None:
        frame = Arrived(stepped().now, 0.0, in_columns=True)
        await done(stream._begin([(1, request, frame)] * count) for stream in self.streams)

    def most_of_a_turn(self) -> int:
        """How many were begun in one turn at most, but for the first of each stream."""
        later = [(turn, count) for turn, count in self.begun if count < session._CALLS]
        return max(sum(count for at, count in later if at == turn) for turn, _ in later)

    def close(self) -> None:
        for stream in self.streams:
            stream.close()


def test_puts_of_a_frame_that_take_long_are_begun_fewer_at_a_time(play: Play) -> None:
    async def scenario() -> None:
        sessions = Sessions(1)
        await sessions.put(400)
        sessions.close()
        assert sum(count for _, count in sessions.begun) == 400
        assert sessions.begun[0][1] == session._CALLS
        assert sessions.most_of_a_turn() <= 2 * TURN / TAKES, (
            "of those of a turn only the last may begin late"
        )

    play(scenario())


def test_puts_of_many_sessions_share_the_turns_and_none_goes_before_the_others(play: Play) -> None:
    async def scenario() -> None:
        sessions = Sessions(5)
        await sessions.put(400)
        sessions.close()
        assert sum(count for _, count in sessions.begun) == 5 * 400
        assert sessions.most_of_a_turn() <= 2 * TURN / TAKES

    play(scenario())


def test_gets_of_a_session_that_take_long_are_begun_fewer_at_a_time(play: Play) -> None:
    async def scenario() -> None:
        sessions = Sessions(1)
        await sessions.get(32)
        sessions.close()
        assert sum(count for _, count in sessions.begun) == 32
        first, *later = (count for _, count in sessions.begun)
        assert first == session_gets._FIRST
        assert max(later) <= TURN / TAKES

    play(scenario())


def test_that_puts_of_a_session_take_long_is_known_of_the_next_frame(play: Play) -> None:
    async def scenario() -> None:
        sessions = Sessions(1)
        await sessions.put(400)
        sessions.begun.clear()
        await sessions.put(400)
        sessions.close()
        assert sessions.begun[0][1] <= TURN / TAKES

    play(scenario())


def test_long_frames_of_many_clients_are_parsed_one_in_a_turn(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        parsed, sessions = list[int](), Sessions(4)

        def decode(_frame: bytes) -> tuple[int, list[Any], list[Any]]:
            parsed.append(stepped().steps)
            stepped().now += 2 * TURN
            return 0, [], []

        monkeypatch.setattr(session, "decode_calls", decode)
        await done(stream.take((bytes(session._LONG + 1),)) for stream in sessions.streams)
        assert len(set(parsed)) == 4
        parsed.clear()
        await done(stream.take((bytes(session._LONG),)) for stream in sessions.streams)
        assert len(set(parsed)) == 1, "short ones wait for nobody"
        sessions.close()

    play(scenario())


def test_what_comes_in_one_turn_is_carried_out_in_several_when_it_takes_long(play: Play) -> None:
    async def scenario() -> None:
        turns, seen = Turns(), list[int]()

        async def one() -> None:
            await turns.share()
            seen.append(stepped().steps)
            stepped().now += 2 * TURN

        await asyncio.gather(*(one() for _ in range(4)))
        assert len(set(seen)) == 4

    play(scenario())


def test_who_has_had_a_turn_goes_behind_those_who_wait_and_who_was_given_up_is_passed_over(
    play: Play,
) -> None:
    async def scenario() -> None:
        turns, order = Turns(), list[int]()

        async def worker(name: int) -> None:
            for _ in range(3):
                await turns.share()
                order.append(name)
                stepped().now += 2 * TURN

        workers = [asyncio.ensure_future(worker(name)) for name in range(4)]
        await asyncio.sleep(0)
        workers[2].cancel()
        await asyncio.wait(workers)
        assert order == [0, *[0, 1, 3] * 2, 1, 3], "the first had not to wait"

    play(scenario())


def test_after_a_turn_that_was_used_up_others_have_eight_and_much_that_takes_little_goes_on_together(
    play: Play,
) -> None:
    async def scenario() -> None:
        turns, seen = Turns(), list[int]()

        async def one(takes: float) -> None:
            await turns.share()
            seen.append(stepped().steps)
            stepped().now += takes

        await asyncio.gather(*(one(2 * TURN) for _ in range(4)))
        assert all(after - before > 8 for before, after in pairwise(seen))
        seen.clear()
        await asyncio.gather(one(2 * TURN), *(one(TURN / 100) for _ in range(1000)))
        assert len(seen) == 1001
        turns_used = len(set(seen))
        assert 1000 / 100 <= turns_used <= 2 * 1000 / 100, "about a hundred in each, when that is known"

    play(scenario())


@pytest.mark.parametrize("parts", [1, 100])
def test_what_did_not_wait_counts_for_its_turn_however_little_each_of_it_takes(
    play: Play, parts: int
) -> None:
    async def scenario() -> None:
        turns, began = Turns(), stepped().steps
        for _ in range(parts):
            stepped().now += 2 * TURN / parts
            turns.spend(2 * TURN / parts)
        await turns.share()
        assert stepped().steps > began + 8, "the turn was used up"
        began = stepped().steps
        turns.spend(TURN / 100)
        await turns.share()
        assert stepped().steps == began

    play(scenario())
