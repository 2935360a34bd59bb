"""Where the frames of a host's peers arrive."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kvstore.sim.network import Parcel
from kvstore.sim.process import Process


class Inbox:
    """The incoming streams of one host, some of which it may leave unread; `read` takes a frame."""

    def __init__(self, process: Process, read: Callable[[Parcel], None]) -> None:
        self._process = process
        self._read = read
        self.deaf_to: frozenset[str] = frozenset()
        """Peers from whose streams nothing is read now."""
        self._unread: list[Parcel] = []

    def receive(self, parcel: Parcel) -> None:
        """A frame has arrived."""
        if parcel.connection.sender in self.deaf_to:
            self._unread.append(parcel)
        else:
            self._process.enter(partial(self._read, parcel))

    def read_again(self) -> None:
        """Read from all streams, also what has waited on them."""
        self.deaf_to = frozenset()
        unread, self._unread = self._unread, []
        for parcel in unread:
            self.receive(parcel)

    def clear(self) -> None:
        """The process has died, and what it had not read is gone."""
        self._unread.clear()
