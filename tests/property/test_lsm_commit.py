"""The group commit in every order of events: what is durable is told in time, in order, and never wrongly.

`tests/unit/test_server_group_commit.py` runs the same machine on real threads and a real disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvstore.errors import StorageFailed, StorageFull
from kvstore.lsm import Durability, Engine, GroupCommit, MemoryFileSystem, Options, Sync
from kvstore.lsm import segments as segments_module
from kvstore.lsm.commit import FULL_PAUSE

INTERVAL = 0.1
RECORD = 100
STEPS = (
    *("write", "large write", "ask", "timer", "sync ends", "full", "space", "who is told asks"),
    *("broken", "defect of who is told", "stop"),
)
"""The last three are rare in what is drawn: little can be seen behind them."""


@pytest.fixture(autouse=True, scope="module")
def _large_records() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments_module, "_LARGE", RECORD)
        yield


class Shell:
    """Notes what the group commit decides, and carries it out when a test says so."""

    def __init__(self, durability: Durability = Durability.SYNC) -> None:
        self.fs = MemoryFileSystem()
        self.engine = Engine.open(self.fs, "d", Options(durability=durability, sync_interval=INTERVAL))
        self.commit = GroupCommit(self.engine, self)
        self.timers: list[float] = []
        self.running: list[Sync] = []
        self.durable: list[int] = []
        self.full: list[bool] = []
        self.fatal: list[BaseException] = []
        self.stopped = self.defect = self.asks = False

    def begin_in(self, seconds: float) -> None:
        self.timers.append(seconds)

    def run_sync(self, sync: Sync) -> None:
        assert not self.stopped
        self.running.append(sync)

    def on_durable(self, lsn: int) -> None:
        assert not self.stopped
        assert not self.fatal
        assert lsn == self.engine.durable_lsn
        self.durable.append(lsn)
        if self.asks:
            self.asks = False
            self.commit.request_sync()
        if self.defect:
            self.defect = False
            raise ZeroDivisionError

    def on_full(self, error: StorageFull | None) -> None:
        self.full.append(error is not None)

    def on_fatal(self, error: BaseException) -> None:
        self.fatal.append(error)

    def step(self, name: str) -> None:
        match name:
            case "write" if not self.engine.refuses:
                self.engine.write([(b"key", b"value")])
                self.commit.request_sync()
            case "large write" if not self.engine.refuses:
                self.engine.write([(b"key", bytes(2 * RECORD))])
                self.commit.request_sync()
            case "ask":
                self.commit.request_sync()
            case "timer" if self.timers:
                self.timers.pop()
                self.commit.begin()
            case "sync ends" if self.running:
                self.sync_ends()
            case "full" | "space":
                self.fs.full = name == "full"
            case "who is told asks":
                self.asks = True
            case "broken":
                self.fs.broken = True
            case "defect of who is told":
                self.defect = True
            case "stop":
                self.commit.stop()
                self.stopped = True
            case _:
                pass  # it cannot happen now

    def sync_ends(self) -> None:
        sync = self.running.pop()
        try:
            sync.run()
        except (StorageFull, StorageFailed) as error:
            self.commit.failed(sync, error)
        else:
            self.commit.ran(sync)

    def check(self) -> None:
        """What holds after each step."""
        assert len(self.running) <= 1, "two syncs at a time"
        assert len(self.timers) + len(self.running) <= 1, "two timers for one sync, or one while it runs"
        assert self.durable == sorted(self.durable)
        assert self.full == [i % 2 == 0 for i in range(len(self.full))], "a full disk is told of once"
        assert len(self.fatal) <= 1
        waiting = self.engine.waits_for_disk and self.engine.last_lsn > max(self.durable, default=0)
        assert not waiting or self.timers or self.running or self.fatal or self.stopped, "forgotten"

    def settle(self) -> None:
        """The disk has space, all syncs end and all timers run."""
        self.fs.full = False
        for _ in range(10):
            for name in ("timer", "sync ends"):
                with suppress(ZeroDivisionError):
                    self.step(name)
                self.check()


def run(shell: Shell, steps: list[str]) -> None:
    for name in steps:
        with suppress(ZeroDivisionError):
            shell.step(name)
        shell.check()


often = st.sampled_from(STEPS[:-3])
drawn = st.lists(st.one_of(often, often, often, st.sampled_from(STEPS)), max_size=40)


@pytest.mark.parametrize("durability", Durability)
@given(steps=drawn)
@example(["write", "timer", "write", "defect of who is told", "sync ends"])
def test_whatever_happens_a_write_is_told_durable_in_the_end_or_the_end_is_told(
    durability: Durability, steps: list[str]
) -> None:
    shell = Shell(durability)
    run(shell, steps)
    shell.settle()
    assert not shell.running
    if not shell.fatal and not shell.stopped:
        assert not shell.timers
        assert not shell.engine.refuses
        if shell.engine.waits_for_disk:
            assert max(shell.durable, default=0) == shell.engine.last_lsn


@given(steps=st.lists(st.sampled_from(("write", "ask", "timer", "sync ends")), max_size=30))
@example(["write", "timer", "write", "ask", "sync ends", "timer", "sync ends"])
def test_there_are_no_more_syncs_than_turns_that_wrote(steps: list[str]) -> None:
    shell = Shell()
    begun = asked = 0
    for name in steps:
        before = len(shell.running)
        asked += name in ("write", "ask")
        shell.step(name)
        begun += len(shell.running) > before
        shell.check()
    assert begun <= asked


def test_a_sync_begins_at_the_end_of_the_turn_later_at_intervals_and_after_a_pause_without_space() -> None:
    shell = Shell()
    run(shell, ["write", "write"])
    assert (shell.timers, shell.running) == ([0.0], [])
    run(shell, ["full", "timer"])
    assert (shell.timers, shell.full) == ([FULL_PAUSE], [True])
    run(shell, ["timer"])
    assert (shell.timers, shell.full) == ([FULL_PAUSE], [True])
    run(shell, ["space", "timer", "sync ends"])
    assert (shell.timers, shell.full, shell.durable) == ([], [True, False], [2])
    shell = Shell(Durability.INTERVAL)
    run(shell, ["write"])
    assert shell.timers == [INTERVAL]


def test_a_large_record_that_finds_no_space_is_written_when_there_is_some() -> None:
    shell = Shell()
    run(shell, ["large write", "timer", "write", "full", "sync ends"])
    assert (shell.timers, shell.full, shell.fatal) == ([FULL_PAUSE], [True], [])
    assert shell.engine.refuses
    run(shell, ["timer"])
    assert (shell.timers, shell.full, shell.durable) == ([FULL_PAUSE], [True], [])
    run(shell, ["space", "timer", "sync ends"])
    assert (shell.timers, shell.full, shell.durable) == ([], [True, False], [2])
    assert len(shell.fs.open("d/00000002.wal").read(0, 1000)) > 2 * RECORD
    shell.engine.close()
    again = Engine.open(shell.fs, "d")
    assert again.last_lsn == 2
    assert again.get(b"key") == b"value"


def test_what_is_written_while_a_sync_runs_waits_for_the_next() -> None:
    shell = Shell()
    run(shell, ["write", "timer", "write", "ask", "write"])
    assert (shell.timers, len(shell.running)) == ([], 1)
    run(shell, ["sync ends"])
    assert (shell.durable, shell.timers) == ([1], [0.0])
    run(shell, ["timer", "sync ends"])
    assert (shell.durable, shell.timers) == ([1, 3], [])


def test_after_a_failed_sync_none_is_begun_and_the_engine_takes_nothing() -> None:
    shell = Shell()
    run(shell, ["write", "timer", "broken", "sync ends"])
    (error,) = shell.fatal
    assert isinstance(error, StorageFailed)
    with pytest.raises(StorageFailed):
        shell.engine.write([(b"key", b"value")])
    run(shell, ["ask", "timer", "ask", "timer"])
    assert (shell.running, shell.durable, len(shell.fatal)) == ([], [], 1)


def test_nothing_is_told_once_it_was_stopped() -> None:
    shell = Shell()
    run(shell, ["write", "timer", "write", "stop", "sync ends", "ask", "timer"])
    assert (shell.durable, shell.timers, shell.running) == ([], [], [])
    assert shell.engine.durable_lsn == 1
    shell.engine.close()
    shell = Shell()
    run(shell, ["write", "stop", "timer"])
    assert (shell.durable, shell.timers, shell.running) == ([], [], [])


def test_what_needs_no_sync_is_told_at_once() -> None:
    shell = Shell(Durability.NONE)
    run(shell, ["write", "timer"])
    assert (shell.durable, shell.running, shell.timers) == ([0], [], [])
