"""The engine crashes at every call that changes the disk, and must recover from each.

A workload with log rotation, flush, compaction, deletes and a clean reopen is run once to count its calls
to the disk, then once for each of them, crashing there, with three fates for what was not synced.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from kvstore.lsm import Engine, Fate, MemoryFileSystem, Options, SimulatedCrash, run_job

OPTIONS = Options(memtable_bytes=3000, block_bytes=256, cache_bytes=2000, tier_tables=3)
STEPS = 90
Batch = list[tuple[bytes, bytes | None]]


@dataclass
class Model:
    """What was written and what was acknowledged: batch i has LSN i + 1 in each life of the engine."""

    batches: list[Batch] = field(default_factory=list)
    acknowledged: int = 0

    def after(self, count: int) -> dict[bytes, bytes]:
        """The content when the first `count` batches are in."""
        content: dict[bytes, bytes | None] = {}
        for batch in self.batches[:count]:
            content.update(batch)
        return {key: value for key, value in content.items() if value is not None}


def batch_number(step: int) -> Batch:
    rng = random.Random(step)
    batch: Batch = [(b"step", b"%d" % step)]
    for _ in range(rng.randrange(1, 5)):
        key = b"key-%02d" % rng.randrange(30)
        batch.append((key, None if rng.random() < 0.2 else rng.randbytes(rng.randrange(60))))
    return batch


def workload(fs: MemoryFileSystem, model: Model) -> None:
    engine = Engine.open(fs, "data", OPTIONS)
    for step in range(STEPS):
        batch = batch_number(step)
        model.batches.append(batch)
        engine.write(batch)
        if step % 3 == 0:
            engine.sync()
            model.acknowledged = len(model.batches)
        for job in engine.take_jobs():
            engine.job_done(run_job(fs, job))
        if step == STEPS // 2:
            engine.close()
            model.acknowledged = len(model.batches)
            engine = Engine.open(fs, "data", OPTIONS)
    engine.close()
    model.acknowledged = len(model.batches)


def recovered(fs: MemoryFileSystem) -> dict[bytes, bytes]:
    engine = Engine.open(fs, "data", OPTIONS)
    content = dict(engine.scan(b"", None))
    assert {key: engine.get(key) for key in content} == content
    engine.write([(b"after", b"works")])
    engine.close()
    names = fs.list("data")
    tables = len([name for name in names if name.endswith(".sst")])
    # CURRENT, LOCK, one manifest, one log; and nothing that the manifest does not name
    assert len(names) == tables + 4, names
    again = Engine.open(fs, "data", OPTIONS)
    assert again.get(b"after") == b"works"
    again.close()
    return content


def test_every_crash_point_with_every_fate() -> None:
    whole = MemoryFileSystem()
    workload(whole, Model())
    recoveries = 0
    for crash_at in range(1, whole.mutations + 1):
        # what a random fate keeps differs from draw to draw
        for draw, fate in enumerate([Fate.NONE, Fate.ALL, *[Fate.RANDOM] * 4]):
            fs, model = MemoryFileSystem(), Model()
            fs.crash_at, fs.torn = crash_at, (crash_at % 10) / 10
            with pytest.raises(SimulatedCrash):
                workload(fs, model)
            content = recovered(fs.crash(random.Random(f"{crash_at}/{draw}"), fate))
            survivors = range(model.acknowledged, len(model.batches) + 1)
            assert any(content == model.after(count) for count in survivors), (
                f"crash at call {crash_at}, {fate.value}: {content} is not what was acknowledged"
            )
            recoveries += 1
    print(f"{recoveries} recoveries")
    assert recoveries > 2000


@pytest.mark.parametrize("fate", list(Fate))
def test_a_crash_in_recovery_is_recovered_from(fate: Fate) -> None:
    fs, model = MemoryFileSystem(), Model()
    fs.crash_at = 300
    with pytest.raises(SimulatedCrash):
        workload(fs, model)
    fs = fs.crash(random.Random(1), Fate.ALL)
    crashes = 0
    for crash_at in range(1, 100):
        fs.crash_at, fs.mutations = crash_at, 0
        try:
            Engine.open(fs, "data", OPTIONS).close()
            break
        except SimulatedCrash:
            crashes += 1
            fs = fs.crash(random.Random(crash_at), fate)
    assert crashes > 5
    fs.crash_at = None
    content = recovered(fs)
    assert any(content == model.after(n) for n in range(model.acknowledged, len(model.batches) + 1))


@pytest.mark.parametrize("suffix", [".wal", ".sst", "MANIFEST", "CURRENT"])
def test_a_flipped_bit_gives_an_error_or_the_right_answer(suffix: str) -> None:
    from kvstore.errors import StorageError

    fs, model = MemoryFileSystem(), Model()
    engine = Engine.open(fs, "data", OPTIONS)
    for step in range(60):
        model.batches.append(batch_number(step))
        engine.write(model.batches[-1])
        engine.sync()
        for job in engine.take_jobs():
            engine.job_done(run_job(fs, job))
    expected = model.after(len(model.batches))
    names = [name for name in fs.list("data") if suffix in name]
    assert names
    errors = right = lost_tail = 0
    for name in names:
        path = f"data/{name}"
        for offset in range(0, fs.size(path), max(1, fs.size(path) // 150)):
            for mask in (0x01, 0x80):
                fs.corrupt(path, offset, mask)
                copy = fs.crash(random.Random(1), Fate.ALL)
                fs.corrupt(path, offset, mask)
                try:
                    content = dict(Engine.open(copy, "data", OPTIONS).scan(b"", None))
                except StorageError:
                    errors += 1
                    continue
                if content == expected:
                    right += 1
                else:
                    # the last record of a log: nothing later proves that it was durable once
                    assert suffix == ".wal"
                    assert content == model.after(len(model.batches) - 1)
                    lost_tail += 1
    print(f"{suffix}: {errors} errors, {right} right answers, {lost_tail} torn tails")
    assert errors


def test_a_file_that_an_orphaned_job_still_writes_is_not_used_again() -> None:
    """A worker that outlived its node wrote over a table of the next life, which had its number."""
    fs = MemoryFileSystem()
    engine = Engine.open(fs, "data", OPTIONS)
    engine.write([(b"key", b"value")])
    engine.sync()
    after = fs.crash(random.Random(1), Fate.ALL)
    orphans = [f"{number:08d}.sst" for number in range(3, 12)]
    for name in orphans:
        after.create(f"data/{name}").append(b"half a table")
    again = Engine.open(after, "data", OPTIONS)
    again.flush()
    tables = {name for name in after.list("data") if name.endswith(".sst")}
    assert tables
    assert not tables & set(orphans)
    assert again.get(b"key") == b"value"
