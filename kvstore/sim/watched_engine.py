"""The engine of a simulated host: it tells of its writes, and knows what a power failure would leave."""

from __future__ import annotations

from typing import Protocol

from kvstore.errors import Corruption
from kvstore.lsm import Engine, FileSystem, Options
from kvstore.lsm.quarantine import Fence
from kvstore.lsm.wal import Batch
from kvstore.versions import EncodedVersion


class Watcher(Protocol):
    """Who is told of what an engine does."""

    def written(self, node: str, key: bytes, old: bytes | None, new: bytes) -> None:
        """A key had `old` and has `new` now; empty: nothing, None: it could not be read."""

    def lifting(self, node: str, engine: WatchedEngine, fence: Fence) -> None:
        """A fence is about to be lifted."""


class WatchedEngine(Engine):
    """What it reads for its watcher the node has just read itself, so watching finds no damage."""

    def __init__(self, fs: FileSystem, directory: str, options: Options) -> None:
        self._node = ""
        self._watcher: Watcher | None = None
        self._since_durable: dict[bytes, list[tuple[int, bytes | None]]] = {}
        """Of keys written in this life: LSN and value of a durable write, and of all after it."""
        super().__init__(fs, directory, options)

    def watch(self, node: str, watcher: Watcher | None) -> None:
        """Tell `watcher`, or nobody, of all from now on; `node` is whose engine this is."""
        self._node, self._watcher = node, watcher

    def write(self, batch: Batch) -> int:
        """See Engine."""
        changes = [(key, self._read(key), new or b"") for key, new in batch]
        lsn = super().write(batch)
        for key, old, new in changes:
            written = self._since_durable.get(key)
            if written is None or written[-1][0] <= self.durable_lsn:
                written = self._since_durable[key] = [(0, old)]
            written.append((lsn, new))
        if self._watcher is not None:
            for key, old, new in changes:
                self._watcher.written(self._node, key, old, new)
        return lsn

    def lift(self, fence: Fence) -> None:
        """See Engine."""
        if self._watcher is not None:
            self._watcher.lifting(self._node, self, fence)
        super().lift(fence)

    def durable(self, key: bytes) -> EncodedVersion | None:
        """A copy or a hint after a power failure now (empty: none); None if it could not be read."""
        written = self._since_durable.get(key)
        if written is None or written[-1][0] <= self.durable_lsn:
            value = self._read(key)
        else:
            value = [value for lsn, value in written if lsn <= self.durable_lsn][-1]
        return None if value is None else EncodedVersion(value)

    def restored_in_memory(self, fence: Fence) -> list[bytes]:
        """Keys behind a fence that could not be read, and of which nothing written since is durable."""
        return [
            key
            for key, written in self._since_durable.items()
            if fence.first <= key <= fence.last and written[0][1] is None and written[1][0] > self.durable_lsn
        ]

    def _read(self, key: bytes) -> bytes | None:
        try:
            return self.get(key) or b""
        except Corruption:
            return None
