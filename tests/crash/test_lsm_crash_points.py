"""The engine crashes at every call that changes the disk, and must recover from each.

The plans of `lsm_workload` cover log rotation, flush, compaction, manifest rewrite, checkpoint and clean
reopen. Each is run once; at each of its calls to the disk the crash is looked at, with three of four fates
for what was not synced.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from kvstore.errors import StorageError
from kvstore.lsm import Compaction, Engine, Fate, MemoryFileSystem, Options, SimulatedCrash
from tests.conftest import Exercised
from tests.crash.lsm_workload import DATA, PLANS, EveryCrash, Ledger, Plan, Run, batch_number, crashed_run

OPTIONS = PLANS[0].options
OPENS = 2
LEAST_RECOVERIES = 5000
FATES = list(Fate)


def recovered(fs: MemoryFileSystem, options: Options) -> dict[bytes, bytes]:
    """What a store holds when it is opened; it must then work, and hold no file that it does not know."""
    engine = Engine.open(fs, DATA, options)
    content = dict(engine.scan())
    assert {key: engine.get(key) for key in content} == content
    engine.write([(b"after", b"works")])
    engine.close()
    names = fs.list(DATA)
    tables = [name for name in names if name.endswith(".sst")]
    assert len(tables) == engine.statistics().tables, f"a table was leaked: {names}"
    assert len(names) == len(tables) + 4, f"more than CURRENT, LOCK, one manifest and one log: {names}"
    again = Engine.open(fs, DATA, options)
    assert again.get(b"after") == b"works"
    again.close()
    return content


class Disks:
    """Disks after crashes, each looked at once: most crashes leave the same bytes as others.

    These, and what was promised, decide alone how opening them ends.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._stores: dict[object, dict[bytes, bytes]] = {}
        self._checkpoints: set[object] = set()

    def check(self, fs: MemoryFileSystem, ledger: Ledger) -> None:
        """Open the store, and then the checkpoints, which share files with it."""
        disk = tuple(files(fs, directory) for directory in (DATA, *ledger.checkpoints))
        if disk not in self._stores:
            self._stores[disk] = recovered(fs, self._options)
        check_content(self._stores[disk], ledger)
        for name, moment in ledger.checkpoints.items():
            seen = name, files(fs, name), moment, name in ledger.completed
            if seen not in self._checkpoints:
                check_checkpoint(fs, self._options, ledger, name)
                self._checkpoints.add(seen)


def files(fs: MemoryFileSystem, directory: str) -> object:
    """Names and bytes of the files in a directory, to be compared."""
    paths = [f"{directory}/{name}" for name in fs.list(directory)]
    return tuple((path, fs.open(path).read(0, fs.size(path))) for path in paths)


def check_store(fs: MemoryFileSystem, options: Options, ledger: Ledger) -> None:
    """Every acknowledged batch is there, and those behind it up to one of them, each as a whole."""
    check_content(recovered(fs, options), ledger)


def check_content(content: dict[bytes, bytes], ledger: Ledger) -> None:
    survivors = range(ledger.acknowledged, len(ledger.batches) + 1)
    assert any(content == ledger.after(count) for count in survivors), (
        f"{content} is not what was acknowledged, {ledger.acknowledged} of {len(ledger.batches)} batches"
    )


def check_checkpoint(fs: MemoryFileSystem, options: Options, ledger: Ledger, name: str) -> None:
    """A completed one holds its moment; one that was cut short does, or is refused, or is not there."""
    if not [file for file in fs.list(name) if file != "LOCK"]:
        assert name not in ledger.completed, f"{name} has vanished"
        return
    try:
        engine = Engine.open(fs, name, options)
    except StorageError:
        assert name not in ledger.completed, f"{name} is refused"
        return
    assert dict(engine.scan()) == ledger.after(ledger.checkpoints[name]), f"{name} is of another moment"
    engine.close()


def crash_everywhere(plan: Plan, shares: int = 1) -> Counter[str]:
    """Crash at every call of the plan, or a share of them; how many stores were recovered, and from what."""
    done: Counter[str] = Counter()
    disks = Disks(plan.options)

    def look() -> None:
        if (fs.mutations - 1) % shares == 0:
            for fate in fates_at(fs.mutations):
                after = fs.crash(random.Random(fs.mutations), fate)
                done.update(after.fates)
                disks.check(after, run.ledger)
                done["recoveries after a crash"] += 1

    fs = EveryCrash(look)
    run = Run(fs, plan)
    run.all()
    return done


def fates_at(crash_at: int) -> tuple[Fate, ...]:
    return Fate.NONE, Fate.PAGES, Fate.RANDOM if crash_at % 2 else Fate.ALL


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_every_crash_point_with_every_fate(plan: Plan, exercised: Exercised) -> None:
    done = crash_everywhere(plan)
    for what, count in done.items():
        exercised(what, count)
    assert done["pages kept behind lost ones"] > 100 * 3
    assert done["recoveries after a crash"] > LEAST_RECOVERIES // len(PLANS)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_what_a_look_shows_is_what_a_crash_leaves(plan: Plan) -> None:
    """Nothing in the engine holds a crash up, or does anything more to the disk."""
    compared = 0

    def look() -> None:
        nonlocal compared
        if (at := fs.mutations) % 17 == 0:
            crashed, ledger = crashed_run(plan, at)
            assert run.ledger == ledger
            for fate in fates_at(at):
                shown, left = (disk.crash(random.Random(at), fate) for disk in (fs, crashed))
                for directory in (DATA, *ledger.checkpoints):
                    assert files(shown, directory) == files(left, directory), f"{fate} at call {at}"
            compared += 1

    fs = EveryCrash(look)
    run = Run(fs, plan)
    run.all()
    assert compared > 20


@pytest.mark.parametrize("plan", PLANS[::3], ids=lambda plan: plan.name)
def test_every_crash_point_while_syncs_write_the_records(
    plan: Plan, exercised: Exercised, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they do with large ones: also those of a segment that has been sealed before the sync began."""
    monkeypatch.setattr("kvstore.lsm.segments._LARGE", 300)
    run = Run(MemoryFileSystem(), plan)
    run.all()
    for what in ("large records", "large records of a sealed segment"):
        exercised(what, run.events[what])
    done = crash_everywhere(plan)
    assert done["recoveries after a crash"] > LEAST_RECOVERIES // len(PLANS)


class CountingFileSystem(MemoryFileSystem):
    """Counts the files that are made, by their kind."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Counter[str] = Counter()

    def create(self, path: str):  # type: ignore[no-untyped-def]  # the writer's class is the module's own
        if path.startswith(DATA):
            self.made["manifest" if "MANIFEST" in path else path[-4:]] += 1
        return super().create(path)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_a_plan_goes_through_everything(plan: Plan) -> None:
    fs = CountingFileSystem()
    run = Run(fs, plan)
    run.all()
    assert fs.made[".wal"] > 2 * OPENS, "no log was rotated"
    assert fs.made["manifest"] > 2 * OPENS, "no manifest was rewritten"
    assert run.events["FlushJob"] > 5
    assert run.events["checkpoint"] == len(run.ledger.completed) == 3
    levels = {event for event in run.events if event.startswith("compaction to level")}
    leveled = plan.options.compaction is Compaction.LEVELED
    assert levels >= {f"compaction to level {level}" for level in ((1, 2) if leveled else (0,))}
    assert run.events["two at a time"] or not plan.together


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("plan", PLANS[:2], ids=lambda plan: plan.name)
def test_crashes_in_recovery_are_recovered_from(plan: Plan, fate: Fate, exercised: Exercised) -> None:
    recoveries = 0
    for crash_at in range(50, 500, 45):
        fs, ledger = crashed_run(plan, crash_at)
        fs = fs.crash(random.Random(crash_at), Fate.ALL)
        recoveries += crash_while_opening(fs, plan, fate, ledger)
    exercised("recoveries after a crash", recoveries)
    assert recoveries > 100


def crash_while_opening(fs: MemoryFileSystem, plan: Plan, fate: Fate, ledger: Ledger) -> int:
    """Each attempt to open the store gets one call further than the one before."""
    for calls in range(1, 200):
        attempt = fs.crash(random.Random(0), Fate.ALL)
        attempt.crash_at = calls
        try:
            Engine.open(attempt, DATA, plan.options).close()
        except SimulatedCrash:
            check_store(attempt.crash(random.Random(calls), fate), plan.options, ledger)
        else:
            return calls
    raise AssertionError("recovery does not end")


@pytest.mark.parametrize("fate", FATES)
def test_a_checkpoint_of_logs_alone_is_not_taken_for_a_store_before_it_is_complete(
    fate: Fate, exercised: Exercised
) -> None:
    """Before the first flush it has no table whose presence would give away that its CURRENT is missing."""
    recoveries, completed = 0, False
    while not completed:
        fs, ledger = MemoryFileSystem(), Ledger()
        engine = Engine.open(fs, DATA, OPTIONS)
        while len(fs.list(DATA)) < 3 + 3:
            ledger.batches.append(batch_number(len(ledger.batches)))
            engine.write(ledger.batches[-1])
        ledger.checkpoints["copy"] = len(ledger.batches)
        recoveries += 1
        fs.crash_at = fs.mutations + recoveries
        try:
            engine.checkpoint("copy")
            ledger.completed.add("copy")
            completed = True
        except SimulatedCrash:
            pass
        check_checkpoint(fs.crash(random.Random(recoveries), fate), OPTIONS, ledger, "copy")
    exercised("recoveries after a crash", recoveries)
    assert recoveries > 10


def crash_with_records_not_synced() -> Counter[str]:
    """Records of a log and of the sealed one before it, none synced; returns what became of their pages."""
    done: Counter[str] = Counter()
    for seed in range(100):
        fs, ledger = MemoryFileSystem(), Ledger()
        engine = Engine.open(fs, DATA, OPTIONS)
        for step in range(6 + seed % 18):
            ledger.batches.append(batch_number(step))
            engine.write(ledger.batches[-1])
            if step == seed % 3:
                ledger.acknowledged = engine.sync()
            engine.write_out()
        after = fs.crash(random.Random(seed), Fate.PAGES)
        done += after.fates
        check_store(after, OPTIONS, ledger)
        done["recoveries after a crash"] += 1
    return done


def test_log_records_that_were_not_synced_are_torn_and_not_damaged(exercised: Exercised) -> None:
    done = crash_with_records_not_synced()
    for what, count in done.items():
        exercised(what, count)
    assert done["pages kept behind lost ones"] > 100


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
