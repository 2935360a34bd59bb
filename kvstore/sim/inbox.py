"""Where the frames of a host's peers arrive."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kvstore.sim.network import SentFrame
from kvstore.sim.process import Process


class Inbox:
    """The incoming streams of one host, some of which it may leave unread; `read` takes a frame."""

    def __init__(self, process: Process, read: Callable[[SentFrame], None]) -> None:
        self._process = process
        self._read = read
        self.deaf_to: frozenset[str] = frozenset()
        """Peers from whose streams nothing is read now."""
        self._unread: list[SentFrame] = []

    def receive(self, sent_frame: SentFrame) -> None:
        """A frame has arrived."""
        if sent_frame.connection.sender in self.deaf_to:
            self._unread.append(sent_frame)
        else:
            self._process.enter(partial(self._read, sent_frame))

    def read_again(self) -> None:
        """Read from all streams, also what has waited on them."""
        self.deaf_to = frozenset()
        unread, self._unread = self._unread, []
        for sent_frame in unread:
            self.receive(sent_frame)

    def clear(self) -> None:
        """The process has died, and what it had not read is gone."""
        self._unread.clear()
