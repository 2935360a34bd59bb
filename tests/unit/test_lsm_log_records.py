"""What a record of the log says was durable when it was written: damage is judged by it (docs/wal.md)."""

from __future__ import annotations

from kvstore.lsm import Engine, MemoryFileSystem
from kvstore.lsm.wal import WalRecord, read_segments


def records(fs: MemoryFileSystem) -> list[WalRecord]:
    paths = [f"store/{name}" for name in fs.list("store") if name.endswith(".wal")]
    return list(read_segments(fs, paths, 0))


def test_a_record_claims_nothing_durable_but_what_a_finished_sync_has_covered() -> None:
    """One that claimed itself would turn a crash that tore pages out of order into corruption."""
    fs = MemoryFileSystem()
    engine = Engine.open(fs, "store")
    for i in range(3):
        engine.write([(b"%d" % i, b"v")])
    first = engine.begin_sync()
    assert first is not None
    first.run()
    engine.finish_sync(first)
    engine.write([(b"3", b"v")])
    second = engine.begin_sync()
    assert second is not None
    engine.write([(b"4", b"v")])
    engine.write_out()  # while the second sync runs
    second.run()
    engine.finish_sync(second)
    engine.write([(b"5", b"v")])
    engine.write_out()
    found = [(record.first_lsn, record.last_lsn, record.durable_lsn) for record in records(fs)]
    assert found == [(1, 3, 0), (4, 4, 3), (5, 5, 3), (6, 6, 4)]


def test_a_sync_covers_only_what_was_there_when_it_began() -> None:
    fs = MemoryFileSystem()
    engine = Engine.open(fs, "store")
    engine.write([(b"a", b"v")])
    sync = engine.begin_sync()
    assert sync is not None
    engine.write([(b"b", b"v")])
    sync.run()
    assert engine.finish_sync(sync) == 1 == engine.durable_lsn
    assert engine.last_lsn == 2
