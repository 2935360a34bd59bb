"""Persist before send: what waits for the disk, in which order it goes, and how few syncs that costs."""

from __future__ import annotations

import pytest

from kvstore.lsm import Durability as DurabilityMode
from kvstore.lsm import Engine, MemoryFileSystem, Options
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import WriteAck
from kvstore.quorum.guard import Guard
from kvstore.quorum.held_outputs import HeldOutputs
from kvstore.quorum.outputs import ACK, Output, Own, Send

NOW, LATER = Instant(1.0, 1000), Instant(2.0, 2000)


class Disk:
    """An engine whose syncs a test does; `released` is what has gone out, and when."""

    def __init__(self, mode: DurabilityMode = DurabilityMode.SYNC) -> None:
        self.engine = Engine.open(MemoryFileSystem(), "n1", Options(durability=mode))
        self.syncs_wanted = 0
        self.released: list[tuple[Output, Instant]] = []
        self.defects: list[Exception] = []
        self.durability = HeldOutputs(self.engine, self._wanted, self._release, Guard(self.defects.append))

    def _wanted(self) -> None:
        self.syncs_wanted += 1

    def _release(self, output: Output, now: Instant) -> None:
        if isinstance(output, Own) and output.number < 0:
            raise ZeroDivisionError
        self.released.append((output, now))

    def write(self) -> int:
        return self.engine.write([(b"n/key", b"value")])

    def sync(self, now: Instant = LATER) -> None:
        self.durability.on_durable(self.engine.sync(), now)


def own(number: int) -> Own:
    return Own(number, ACK)


def test_nothing_leaves_before_its_writes_are_on_the_disk_and_then_all_in_order() -> None:
    disk = Disk()
    outputs: list[Output] = [own(1), Send("n2", WriteAck((7,))), own(3)]
    for output in outputs:
        disk.durability.after(disk.write(), output, NOW)
    assert disk.released == []
    assert disk.syncs_wanted == 1, "one sync for all of them"
    disk.sync()
    assert disk.released == [(output, LATER) for output in outputs]
    assert disk.syncs_wanted == 1


def test_what_is_durable_already_goes_at_once_and_costs_no_sync() -> None:
    disk = Disk()
    lsn = disk.write()
    disk.engine.sync()
    assert not disk.durability.must_wait(lsn)
    disk.durability.after(lsn, own(1), NOW)
    assert disk.released == [(own(1), NOW)]
    assert disk.syncs_wanted == 0


def test_a_sync_that_covers_only_some_releases_these_and_the_next_is_asked_for() -> None:
    disk = Disk()
    disk.durability.after(disk.write(), own(1), NOW)
    durable = disk.engine.sync()
    disk.durability.after(disk.write(), own(2), NOW)
    disk.durability.on_durable(durable, LATER)
    assert disk.released == [(own(1), LATER)]
    assert disk.syncs_wanted == 2
    disk.sync()
    assert disk.released == [(own(1), LATER), (own(2), LATER)]


def test_what_depends_on_an_earlier_write_does_not_overtake() -> None:
    disk = Disk()
    first, second = disk.write(), disk.write()
    disk.durability.after(second, own(1), NOW)
    disk.durability.after(first, own(2), NOW)
    disk.durability.on_durable(first, LATER)
    assert disk.released == []
    disk.durability.on_durable(second, LATER)
    assert [output for output, _ in disk.released] == [own(1), own(2)]


def test_an_output_that_fails_does_not_keep_the_others_back() -> None:
    disk = Disk()
    for number in (1, -1, 2):
        disk.durability.after(disk.write(), own(number), NOW)
    disk.sync()
    assert [output for output, _ in disk.released] == [own(1), own(2)]
    assert [type(error) for error in disk.defects] == [ZeroDivisionError]


def test_what_waits_when_an_output_writes_is_released_by_a_later_sync() -> None:
    """An acknowledgement may begin the next write, as that of a delete's read does."""
    disk = Disk()

    def release(output: Output, now: Instant) -> None:
        disk.released.append((output, now))
        if output == own(1):
            disk.durability.after(disk.write(), own(2), now)

    disk.durability = HeldOutputs(disk.engine, disk._wanted, release, Guard(disk.defects.append))
    disk.durability.after(disk.write(), own(1), NOW)
    disk.sync()
    assert disk.released == [(own(1), LATER)]
    assert disk.syncs_wanted == 2
    disk.sync()
    assert [output for output, _ in disk.released] == [own(1), own(2)]
    assert disk.defects == []


def test_soon_wants_syncs_until_that_write_is_durable_and_none_after() -> None:
    disk = Disk()
    first = disk.write()
    second = disk.write()
    disk.durability.soon(second)
    disk.durability.soon(first)
    assert disk.syncs_wanted == 1
    disk.durability.on_durable(first, LATER)
    assert disk.syncs_wanted == 2, "that one began before the second write"
    disk.sync()
    assert disk.syncs_wanted == 2
    disk.durability.soon(second)
    assert disk.syncs_wanted == 2
    assert disk.released == []


@pytest.mark.parametrize("mode", [mode for mode in DurabilityMode if mode is not DurabilityMode.SYNC])
def test_who_does_not_wait_for_the_disk_is_acknowledged_at_once_and_synced_all_the_same(
    mode: DurabilityMode,
) -> None:
    disk = Disk(mode)
    disk.durability.after(disk.write(), own(1), NOW)
    assert disk.released == [(own(1), NOW)]
    assert disk.syncs_wanted == 1
