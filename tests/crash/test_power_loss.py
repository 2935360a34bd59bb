"""Real power loss: the disk of a process that writes is shut down, and only what was synced is left.

An ext4 on a loop device, shut down without a flush of its journal by the ioctl that xfstests uses. The
process reports each LSN that it holds for durable. `make power-loss` runs 200 cycles.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from jepsen.drivers.disk import LoopDisk, loop_reason_to_skip
from jepsen.system import CommandFailed
from kvstore.lsm import Engine
from kvstore.store import DiskFileSystem
from tests.crash.power_loss_writer import OPTIONS, batch_of

CYCLES = int(os.environ.get("POWER_LOSS_CYCLES", "8"))
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    if reason := loop_reason_to_skip():
        pytest.skip(reason)
    made = LoopDisk(tmp_path)
    try:
        made.open()
    except CommandFailed as error:
        pytest.skip(f"cannot mount here: {error}")
    try:
        yield made
    finally:
        made.close()


@contextmanager
def writer(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.crash.power_loss_writer", str(directory)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def write_until_power_loss(disk: LoopDisk, rng: random.Random) -> int:
    """Let a process write, cut the power at some moment; the last LSN that it had reported by then.

    What it reports while the file system goes down does not count: a computer without power reports
    nothing, but ext4 lets some syncs succeed whose transaction the shutdown has thrown away.
    """
    with writer(disk.data) as process:
        assert process.stdout is not None
        reported = b""
        reports = rng.randrange(1, 60)
        while reported.count(b"\n") < reports:
            more = os.read(process.stdout.fileno(), 65536)
            assert more, process.communicate()[1].decode()
            reported += more
        disk.cut_power()
        _, errors = process.communicate(timeout=60)
        # its own words: a typed error, and not what Python says of others
        assert process.returncode == 1, (process.returncode, errors)
        assert b"Traceback" not in errors, errors.decode()
    return int(reported[: reported.rindex(b"\n")].split()[-1])


@dataclass
class Seen:
    """What the cycles have exercised."""

    cycles: int = 0
    acknowledged: int = 0
    unacknowledged_kept: int = 0
    tables: int = 0
    logs_replayed: int = 0


class Expected:
    """The content after so many batches."""

    def __init__(self) -> None:
        self._lsn = 0
        self._content: dict[bytes, bytes | None] = {}

    def at(self, lsn: int) -> dict[bytes, bytes]:
        assert lsn >= self._lsn, f"the store has gone back from {self._lsn} to {lsn}"
        for number in range(self._lsn + 1, lsn + 1):
            self._content.update(batch_of(number))
        self._lsn = lsn
        return {key: value for key, value in self._content.items() if value is not None}


def test_what_was_acknowledged_survives_the_loss_of_power(disk: LoopDisk) -> None:
    rng = random.Random(f"power loss {CYCLES}")
    seen, expected = Seen(), Expected()
    directory = disk.data
    for _ in range(CYCLES):
        acknowledged = write_until_power_loss(disk, rng)
        disk.power_on()
        names = os.listdir(directory)
        with closing(Engine.open(DiskFileSystem(), str(directory), OPTIONS)) as engine:
            last_lsn, content = engine.last_lsn, dict(engine.scan())
        assert last_lsn >= acknowledged, f"{acknowledged} was acknowledged, {last_lsn} has survived"
        # exactly the content after that many batches: none is there in part
        assert content == expected.at(last_lsn)
        seen.cycles += 1
        seen.acknowledged = acknowledged
        seen.unacknowledged_kept += last_lsn - acknowledged
        seen.tables += sum(name.endswith(".sst") for name in names)
        seen.logs_replayed += sum(name.endswith(".wal") for name in names)
    print(seen)
    assert seen.acknowledged > 10 * CYCLES
    assert seen.tables
    assert seen.logs_replayed
