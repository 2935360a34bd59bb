"""The asyncio bucket as threads use it: what it awaits blocks the thread, and is there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from kvstore.client.asynchronous import Bucket
from kvstore.client.core.waiter import Answer
from kvstore.client.ports import Runner
from kvstore.client.results import V
from kvstore.protocol.client import ClientRequest, Success
from kvstore.protocol.scan import Scan, Scanned


class ThreadBucket(Bucket[V]):
    """Before `inner`, which belongs to the loop behind `runner`: its coroutines never wait.

    All but the requests themselves is done in the calling thread: it calls functions that its caller has
    handed in.
    """

    def __init__(self, inner: Bucket[V], runner: Runner) -> None:
        super().__init__(inner._dispatcher, inner._requests, inner._serializer, inner._seen, inner._use)
        self._inner = inner
        self._runner = runner
        self._ask = partial(_ask, inner, runner)

    async def _ask_all(self, requests: Sequence[ClientRequest]) -> list[Answer]:
        return self._runner.run(self._inner._ask_all(requests))

    async def _scan(self, scan: Scan) -> Scanned:
        return self._runner.run(self._inner._scan(scan))


async def _ask(bucket: Bucket[Any], runner: Runner, request: ClientRequest) -> Success:
    return runner.ask(partial(bucket._begin, request))
