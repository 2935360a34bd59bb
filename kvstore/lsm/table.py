"""Reading a table: lookups by key, with the help of its filter, and scans."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

from kvstore.errors import Corruption
from kvstore.lsm.cache import BlockCache
from kvstore.lsm.data_blocks import DataBlocks
from kvstore.lsm.merge import Chunk
from kvstore.lsm.quarantine import whole
from kvstore.lsm.table_file import TableFile
from kvstore.lsm.table_index import Guide
from kvstore.lsm.table_scan import scan_table


class Table:
    """An open table. Without a `cache` it keeps its index to itself and no data block: for one pass."""

    def __init__(self, file: TableFile, cache: BlockCache | None) -> None:
        """The file is closed with the table, and when this fails; raises Corruption."""
        self.file, self.path, self.info = file, file.path, file.info
        self._smallest, self._largest = self.info.smallest, self.info.largest
        self._cache = cache
        self._own_guide: Guide | None = None
        self.holds_hash: Callable[[int], bool] | None = None
        """The test of the filter, as long as that is at hand."""
        self.filter_useful = 0
        self.filter_false = 0
        self.filter_true = 0
        self.blocks = DataBlocks(file, cache)
        try:
            self._guide()
        except BaseException:
            self.file.close()
            raise

    def close(self) -> None:
        """Close the file; nothing may be read any more."""
        self.file.close()
        self.leave_cache()

    def leave_cache(self) -> None:
        """The table has been replaced: scans under way read on past the cache."""
        if self._cache:
            self._cache.forget(self.info.number)
            self._cache = self.blocks.cache = None

    def _guide(self) -> Guide:
        if self._own_guide:
            return self._own_guide
        number, offset = self.info.number, self.file.index_at[0]
        known = self._cache.get(number, offset, Guide) if self._cache is not None else None
        try:
            guide = known or self.file.read_guide()
        except Corruption:
            self.blocks.on_damage(whole(self.info))
            raise
        # every lookup needs it: only where indexes and filters are too many, it has to be found each time
        if self._cache is None or self._cache.pin(number, offset, guide.memory):
            self._own_guide = guide
            self.holds_hash = guide.filter.holds_hash if guide.filter else None
        elif not known:
            self._cache.put(number, offset, guide)
        return guide

    def get(self, key: bytes, hashed: int, default: bytes | None) -> bytes | None:
        """The value, None for a deletion, `default` when the key is not here; raises Corruption.

        `hashed` is `hash_key(key)`.
        """
        bloom = (self._own_guide or self._guide()).filter
        if bloom is not None and not bloom.holds_hash(hashed):
            self.filter_useful += 1
            return default
        return self.look_up(key, default)

    def look_up(self, key: bytes, default: bytes | None) -> bytes | None:
        """As `get`, of a key that the filter lets pass."""
        if not self._smallest <= key <= self._largest:
            return default
        index = (self._own_guide or self._guide()).index
        i = bisect_left(index.last_keys, key)
        blocks = self.blocks
        if i in blocks.left_out:
            return default
        value = blocks.get(index, i).get(key, default)
        if value is default:
            self.filter_false += 1
        else:
            self.filter_true += 1
        return value

    def chunks(
        self, start: bytes, end: bytes | None, reverse: bool = False, around: bool = False
    ) -> Iterator[Chunk]:
        """Entries of [start, end) in order; raises Corruption, or goes `around` what is damaged."""
        return scan_table(self._guide, self.blocks, start, end, reverse, around)

    def fence(self, i: int) -> None:
        """Block `i` is damaged: from now on it cannot be read. Raises Corruption when the index is, too."""
        self.blocks.fence(self._guide().index, i)

    def leave_out(self, i: int) -> None:
        """Block `i` counts as if it held nothing: all that it might hold is known better elsewhere."""
        self.blocks.leave_out(i)

    @property
    def left_out(self) -> tuple[int, ...]:
        """The blocks that count as if they held nothing, in order."""
        return tuple(sorted(self.blocks.left_out))

    def damaged_blocks(self) -> Iterator[int]:
        """Read all blocks from the disk: which are damaged, and not left out; raises Corruption."""
        yield from self.blocks.damaged(self._guide().index)
