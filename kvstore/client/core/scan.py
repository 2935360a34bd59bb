"""A page of a scan: any node can make it, and a replica of where it begins has the least work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from kvstore.client.core.calls import Calls
from kvstore.client.core.routing import Routing
from kvstore.errors import InternalError, KVError, NoNodeAvailable
from kvstore.protocol.scan import Scan, Scanned, ScannedKey
from kvstore.ring import internal_key, partition_of, token_at

_FIRST_SHARE = 0.5
"""Of its time that the first node gets for a page, so that another one can be asked."""


class Pages:
    """The pages of one client: each is asked of the replica that was asked longest ago.

    For a node rests after a page that it has made. `ask` has one make a page, and raises what it says; `now`
    is in seconds.
    """

    def __init__(
        self, routing: Routing, ask: Callable[[Calls, Scan], Awaitable[Scanned]], now: Callable[[], float]
    ) -> None:
        self._routing = routing
        self._ask = ask
        self._now = now
        self._asked = 0
        self._turns: dict[str, int] = {}
        """The number of the page that a node was asked for last, by its address."""

    async def page(self, scan: Scan) -> Scanned:
        """A page within the timeout of the scan, by the first node that makes one; raises why none does."""
        deadline = self._now() + scan.timeout
        problem: KVError | None = None
        for calls in self._nodes(scan):
            left = deadline - self._now()
            if left <= 0:
                break
            share = left if problem else _FIRST_SHARE * left
            self._asked += 1
            self._turns[calls.address] = self._asked
            try:
                return _checked(scan, await self._ask(calls, replace(scan, timeout=share)))
            except KVError as error:
                if not error.retryable:
                    raise
                if problem is None or isinstance(problem, NoNodeAvailable):
                    problem = error
        raise problem or NoNodeAvailable(self._routing.problems)

    def _nodes(self, scan: Scan) -> list[Calls]:
        """Replicas of where it begins, then the others: those that can be reached, unless none can."""
        routing = self._routing
        lists = routing.state.ring.replica_lists
        first = [routing.at(node) for node in lists[partition_of(token_at(scan.cursor), len(lists))]]
        first.sort(key=lambda calls: self._turns.get(calls.address, 0))
        nodes = [*first, *(calls for calls in routing.nodes.values() if calls not in first)]
        return [calls for calls in nodes if calls.ready] or nodes


def _checked(scan: Scan, page: Scanned) -> Scanned:
    if page.next and page.next <= scan.cursor:
        raise InternalError("a node sent a page of a scan that ends before it begins")
    last = _place(scan, page.keys[-1]) if scan.until and page.keys else b""
    if not scan.until or (last < scan.until and page.next < scan.until):
        return page
    # a node of an earlier version knows of no `until`
    return Scanned(tuple(each for each in page.keys if _place(scan, each) < scan.until), b"")


def _place(scan: Scan, found: ScannedKey) -> bytes:
    return internal_key(scan.bucket, found.key)
