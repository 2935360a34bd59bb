"""A job that fails half way takes no table along that is in use, and leaves none that is not."""

from __future__ import annotations

import pytest

from kvstore.errors import Corruption, StorageError, StorageFailed, StorageFull
from kvstore.lsm import Engine, MemoryFileSystem, Options
from kvstore.lsm.pace import Pace, full_speed

CONTENT = {b"key-%d" % i: b"value" for i in range(4000)}


class StubbornDisk(MemoryFileSystem):
    """Refuses once to remove a table, when it is told so."""

    error: StorageError | None = None

    def remove(self, path: str, pace: Pace = full_speed) -> None:
        error = self.error
        if error and path.endswith(".sst"):
            self.error = None
            raise error
        super().remove(path, pace)


def two_tables(fs: MemoryFileSystem) -> Engine:
    engine = Engine.open(fs, "store", Options(block_bytes=500))
    for half in (0, 1):
        engine.write([(key, value) for key, value in CONTENT.items() if key[-1] % 2 == half])
        engine.flush()
    return engine


@pytest.mark.parametrize("error", [StorageFailed("input/output error"), StorageFull("quota")])
def test_inputs_that_cannot_be_removed_do_not_cost_the_output(error: StorageError) -> None:
    fs = StubbornDisk()
    engine = two_tables(fs)
    fs.error = error
    engine.compact()
    assert dict(engine.scan()) == CONTENT
    engine.close()
    engine = Engine.open(fs, "store")
    assert dict(engine.scan()) == CONTENT
    assert engine.statistics().tables == 1
    engine.close()


def test_a_damaged_input_leaves_no_output_behind() -> None:
    fs = MemoryFileSystem()
    engine = two_tables(fs)
    before = fs.list("store")
    table = next(name for name in before if name.endswith(".sst"))
    fs.corrupt(f"store/{table}", fs.size(f"store/{table}") // 2, 1)
    with pytest.raises(Corruption, match="checksum"):
        engine.compact()
    assert fs.list("store") == before
    engine.close()
