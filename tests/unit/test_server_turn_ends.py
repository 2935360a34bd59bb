"""When what a turn of the node has queued is written: at its end, under load a moment later."""

from __future__ import annotations

import asyncio

import pytest

from kvstore.frames.gathering import Gathering
from kvstore.frames.turn_ends import TurnEnds
from tests.unit.memory_client import Play
from tests.unit.stepped_loop import stepped


class Queue:
    """What a writer has to write; `at_once` says whether it needs no waiting."""

    def __init__(self, turn_ends: TurnEnds) -> None:
        self.waiting = 0
        self.at_once = True
        self.written: list[tuple[float, int]] = []
        self.by_writer = 0
        self.gathering = Gathering(turn_ends)

    def put(self, count: int = 1) -> None:
        for _ in range(count):
            self.waiting += 1
            self.gathering.add()

    def _write_now(self) -> bool:
        if self.at_once:
            self._write()
        return self.at_once

    def _write(self) -> None:
        self.written.append((stepped().now, self.waiting))
        self.gathering.sent(self.waiting)
        self.waiting = 0

    async def write(self) -> None:
        while True:
            await self.gathering.until_due(self._write_now)
            self.by_writer += 1
            self._write()


def test_what_a_turn_adds_is_done_once_at_its_end_and_then_what_that_adds(play: Play) -> None:
    async def scenario() -> None:
        ends, done = TurnEnds(), list[str]()

        def first() -> None:
            done.append("first")
            ends.add(lambda: done.append("third"))
            with ends:
                ends.add(lambda: done.append("fourth"))
            assert done == ["first"], "the end of a turn within another one is that of the other"

        with ends:
            ends.add(first)
            with ends:
                ends.add(lambda: done.append("second"))
            assert not done
        assert done == ["first", "second", "third", "fourth"]
        with ends:
            pass
        assert len(done) == 4

    play(scenario())


def test_outside_of_turns_it_is_done_soon_and_what_fails_keeps_nothing_back(play: Play) -> None:
    async def scenario() -> None:
        ends, done = TurnEnds(), list[int]()
        ends.add(lambda: done.append(1))
        ends.add(lambda: done.append(2))
        assert not done
        await asyncio.sleep(0)
        assert done == [1, 2]

        def turn() -> None:
            with ends:
                ends.add(lambda: 1 // 0)  # type: ignore[arg-type]
                ends.add(lambda: done.append(3))

        with pytest.raises(ZeroDivisionError):
            turn()
        await asyncio.sleep(0)
        assert done == [1, 2, 3]
        with ends:
            ends.add(lambda: done.append(4))
        assert done == [1, 2, 3, 4]

    play(scenario())


def test_a_lone_message_leaves_with_its_turn_and_many_gather_for_a_pass_of_the_loop(play: Play) -> None:
    async def scenario() -> None:
        ends = TurnEnds()
        queue = Queue(ends)
        writer = asyncio.ensure_future(queue.write())
        await asyncio.sleep(0)
        begun = stepped().now
        for _ in range(2):
            with ends:
                queue.put()
        assert queue.written == [(begun, 1)] * 2
        with ends:
            queue.put(3)
        assert queue.written[2:] == [(begun, 3)]
        for _ in range(4):
            with ends:
                queue.put()
        assert len(queue.written) == 3, "after a frame of many there is load"
        await asyncio.sleep(0)
        assert queue.written[3:] == [(begun, 4)]
        assert not queue.by_writer
        queue.at_once = False
        with ends:
            queue.put()
        await asyncio.sleep(1.0)
        assert (queue.by_writer, queue.waiting) == (1, 0)
        writer.cancel()
        await asyncio.wait([writer])

    play(scenario())


def test_what_is_queued_while_the_writer_is_at_work_or_not_there_yet_waits_for_it(play: Play) -> None:
    async def scenario() -> None:
        ends = TurnEnds()
        queue = Queue(ends)
        with ends:
            queue.put()
        assert not queue.written
        writer = asyncio.ensure_future(queue.write())
        await asyncio.sleep(0.1)
        assert (queue.by_writer, queue.waiting) == (1, 0)
        writer.cancel()
        await asyncio.wait([writer])

    play(scenario())


def test_nothing_is_written_into_what_the_writer_has_begun(play: Play) -> None:
    async def scenario() -> None:
        ends = TurnEnds()
        queue = Queue(ends)
        begun = 0

        async def write_slowly() -> None:
            nonlocal begun
            while True:
                await queue.gathering.until_due(queue._write_now)
                begun, queue.waiting = begun + queue.waiting, 0
                await asyncio.sleep(0.1)

        writer = asyncio.ensure_future(write_slowly())
        await asyncio.sleep(0)
        queue.at_once = False
        with ends:
            queue.put()
        await asyncio.sleep(0.05)
        queue.at_once = True
        with ends:
            queue.put()
        assert (begun, queue.written) == (1, []), "it is at work"
        await asyncio.sleep(0.1)
        assert (begun, queue.written) == (2, []), "and goes on with what came meanwhile"
        writer.cancel()
        await asyncio.wait([writer])

    play(scenario())


def test_a_defect_in_writing_is_the_writers_and_not_that_of_the_turn(play: Play) -> None:
    async def scenario() -> None:
        ends = TurnEnds()

        def fail() -> bool:
            raise ZeroDivisionError

        gathering = Gathering(ends)
        writer = asyncio.ensure_future(gathering.until_due(fail))
        await asyncio.sleep(0)
        with ends:
            gathering.add()
        with pytest.raises(ZeroDivisionError):
            await writer

    play(scenario())
