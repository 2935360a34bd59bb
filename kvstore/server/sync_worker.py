"""The thread that syncs run on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeAlias

from kvstore.from_threads import FromThreads
from kvstore.lsm import Sync

Ended: TypeAlias = tuple[Sync, BaseException | None]


class SyncWorker:
    """Runs one sync after the other; `ended` is called on the loop with each, and with what it has raised.

    A pool of threads would make a future of each, and the loop a handle: more than twice the price.
    """

    def __init__(self, ended: Callable[[Sync, BaseException | None], None]) -> None:
        self._ended = ended
        self._due: SimpleQueue[Sync | None] = SimpleQueue()
        self._done: FromThreads[Ended] = FromThreads(self._tell)
        self._thread: threading.Thread | None = None

    def submit(self, sync: Sync) -> None:
        """Run a sync; raises RuntimeError when there can be no thread, and then does not."""
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="sync", daemon=True)
            thread.start()
            self._thread = thread
        self._due.put(sync)

    def _work(self) -> None:
        while (sync := self._due.get()) is not None:
            error: BaseException | None = None
            try:
                sync.run()
            except BaseException as raised:  # noqa: BLE001  (the loop's thread decides what it means)
                error = raised
            self._done.put((sync, error))
            del sync, error  # or the next wait would keep them

    def _tell(self, ended: Sequence[Ended]) -> None:
        for sync, error in ended:
            self._ended(sync, error)

    def shutdown(self) -> None:
        """End the thread, which is idle; may be called again."""
        if self._thread is not None:
            self._due.put(None)
            self._thread.join()
            self._thread = None
        self._done.close()
