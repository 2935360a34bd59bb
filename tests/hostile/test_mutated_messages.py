"""Valid messages with damaged bytes, of peers and clients, at real servers: KVSTORE_HOSTILE=1 has 100,000."""

from __future__ import annotations

import os
import random
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import Exercised
from tests.fuzz.mutations import mutated
from tests.hostile.live_nodes import Attack, LiveNodes, assert_no_traceback, launch
from tests.hostile.valid_messages import frames, session_requests, unary_requests
from tests.unit.server_nodes import run

COUNT = 100_000 if os.environ.get("KVSTORE_HOSTILE") else 1_500


def damaged(nodes: LiveNodes, rng: random.Random, number: int) -> tuple[str, Attack]:
    """The attack of that number: half of them are frames of peers."""
    node = number % 3
    if number % 2:
        data = mutated(rng, [frame.SerializeToString() for frame in _FRAMES])
        return f"peer {data.hex()}", partial(nodes.peer, node, data)
    if number % 4:
        data = mutated(rng, [request.SerializeToString() for request in _SESSIONS])
        return f"session {data.hex()}", partial(nodes.session, node, data)
    method, request = rng.choice(_CALLS)
    data = mutated(rng, [request.SerializeToString()])
    return f"{method} {data.hex()}", partial(nodes.unary, node, method, data)


_FRAMES, _SESSIONS, _CALLS = list(frames().values()), session_requests(), unary_requests()


@pytest.mark.timeout(3600)
def test_damaged_messages_hurt_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, exercised: Exercised
) -> None:
    """Replicas are compared by the canaries alone: another value under one dot is a version like others."""
    nodes, rng = LiveNodes(tmp_path), random.Random(15)
    counts: Counter[str] = Counter()

    async def scenario() -> None:
        async with nodes.serving():
            await nodes.plant_canaries()
            for first in range(0, COUNT, 1000):
                batch = range(first, min(first + 1000, COUNT))
                found = await launch([damaged(nodes, rng, number) for number in batch])
                counts.update(found.values())
            await nodes.check()
        disks = nodes.on_disk()
        canaries = [{key: v for key, v in disk.items() if b"\0canary" in key} for disk in disks]
        assert canaries[0] == canaries[1] == canaries[2]
        assert len(canaries[0]) == 30
        async with nodes.serving():
            await nodes.check()

    run(scenario())
    assert_no_traceback(caplog)
    for code, count in counts.items():
        exercised(f"damaged messages, {code}", count)
