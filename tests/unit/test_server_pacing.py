"""Work that takes long leaves the loop to others in between: pages of scans, and puts of one frame."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from kvstore.protocol.client import Put
from kvstore.protocol.scan import Scanned
from kvstore.server import session
from kvstore.server.large_replies import LargeReplies
from kvstore.server.scans import Scans
from kvstore.server.session import ClientStream
from kvstore.server.unread import UnreadReplies
from kvstore.v1 import client_pb2 as pb
from kvstore.versions import BucketName, UserKey
from tests.unit.memory_client import Play

WORK = 0.1
"""Seconds of the loop that a page takes."""


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


def test_puts_of_a_frame_that_take_long_are_begun_fewer_at_a_time(play: Play) -> None:
    async def scenario() -> None:
        now, turn = 0.0, 0
        begun: list[tuple[int, int]] = []

        def begin(_client: object, _principal: object, requests: list[object]) -> None:
            nonlocal now
            begun.append((turn, len(requests)))
            now += 0.002 * len(requests)

        async def count_turns() -> None:
            nonlocal turn
            while True:
                turn += 1
                await asyncio.sleep(0)

        driver: Any = SimpleNamespace(executor=SimpleNamespace(begin=begin, leave=lambda _client: None))
        context: Any = SimpleNamespace(peer=lambda: "ipv4:127.0.0.1:1")
        stream = ClientStream(driver, context, UnreadReplies(), LargeReplies())
        stream._clock = lambda: now
        turns = asyncio.ensure_future(count_turns())
        put = Put(BucketName("b"), UserKey(b"k"), b"v")
        await stream._begin([(put, lambda _reply: None)] * 400, now)
        turns.cancel()
        stream.close()
        assert sum(count for _, count in begun) == 400
        assert begun[0][1] == session._CALLS
        later = [sum(count for at, count in begun if at == each) for each in {at for at, _ in begun[1:]}]
        assert max(later) <= 2 * session._TURN / 0.002, "of those of a turn only the last may begin late"

    play(scenario())
