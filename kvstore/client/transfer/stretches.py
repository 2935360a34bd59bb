"""The stretches of the ring in which a whole bucket is read: several at once, given in the ring's order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeAlias

from kvstore.config import Limits
from kvstore.protocol.scan import Scanned
from kvstore.ring import ClusterState, place_of, token_at

PageOf: TypeAlias = Callable[[bytes, bytes], Scanned]
"""The page that begins at the first place and ends before the second (empty: at the end of the ring)."""

_SHARE = 0.9
"""Of what a page has covered, so much has the next stretch: keys are spread by their hash, not evenly."""
_WIDER = 1.25
"""After a page that might have had more, stretches are so many times wider: one may end early by chance."""


def pages_at_once(state: ClusterState) -> int:
    """How many pages to ask for at once: a node makes one at a time, asks others for it, and rests then."""
    return 2 if len(state.members) > 2 else 1


class _Asked(NamedTuple):
    start: bytes
    until: bytes
    page: Future[Scanned]


class Stretches:
    """Iterates over the pages of a bucket in order; `at_once` are fetched by threads meanwhile.

    The first page tells how far one goes. From then on each is asked for up to where it should end, so that
    the one behind it can be asked for already; what a stretch has more than a page is read before that.
    """

    def __init__(self, page_of: PageOf, at_once: int) -> None:
        self._page_of = page_of
        self._at_once = at_once
        self._threads = ThreadPoolExecutor(at_once)
        self._asked: deque[_Asked] = deque()
        self._rest: bytes | None = b""
        """Where begins what nobody has been asked for; None: there is no more."""
        self._width = 0
        """Of a stretch, in tokens; 0: it goes to the end of the ring."""

    def __iter__(self) -> Iterator[Scanned]:
        try:
            self._ask_ahead()
            while self._asked:
                asked = self._asked.popleft()
                page = asked.page.result()
                self._learn(asked, page)
                if page.next and self._asked:
                    self._asked.appendleft(self._ask(page.next, asked.until))
                elif page.next:
                    self._rest = page.next
                self._ask_ahead()
                yield page
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _ask_ahead(self) -> None:
        while self._rest is not None and len(self._asked) < self._at_once:
            until = self._end(self._rest)
            self._asked.append(self._ask(self._rest, until))
            self._rest = until or None

    def _ask(self, start: bytes, until: bytes) -> _Asked:
        return _Asked(start, until, self._threads.submit(self._page_of, start, until))

    def _end(self, start: bytes) -> bytes:
        """Where a stretch ends that begins there."""
        return place_of(token_at(start) + self._width) if self._width else b""

    def _learn(self, asked: _Asked, page: Scanned) -> None:
        if self._at_once == 1:
            return  # nothing is gained by shorter ones
        if page.next:
            covered = token_at(page.next) - token_at(asked.start)
            self._width = max(1, int(_SHARE * covered))
        elif _WIDER * len(page.keys) < Limits.scan_keys:
            self._width = int(_WIDER * self._width) + 1
