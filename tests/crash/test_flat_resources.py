"""Open files and memory stay flat however often a store is opened, written, flushed, compacted and closed."""

from __future__ import annotations

import gc
import os
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kvstore.lsm import Compaction, Engine, Options, run_job
from kvstore.store import DiskFileSystem

CYCLES, WARM = 400, 100
OPTIONS = Options(memtable_bytes=1200, block_bytes=256, tier_tables=2, compaction=Compaction.LEVELED)
_GROWTH = 16 * 1024
"""Bytes of Python's memory: less than 60 a cycle are too many."""


@pytest.fixture
def directory() -> Iterator[str]:
    """In memory where that is possible: thousands of syncs are not what is tested here."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else None) as name:
        yield name


def cycle(directory: str, number: int) -> int:
    """Returns how many jobs were done."""
    jobs = 0
    fs = DiskFileSystem()
    engine = Engine.open(fs, directory, OPTIONS)
    for i in range(8):
        engine.write([(b"key-%d" % ((number + i) % 20), b"value %d" % number * 10)])
        for job in engine.take_jobs():
            engine.job_done(run_job(fs, job))
            jobs += 1
    running = engine.scan()
    next(running)
    engine.flush()
    engine.maintenance.compact()
    assert engine.get(b"key-%d" % (number % 20))
    engine.close()
    return jobs


def test_open_files_and_memory_stay_flat(directory: str) -> None:
    process = psutil.Process()
    jobs = 0
    for number in range(WARM):
        jobs += cycle(directory, number)
    tracemalloc.start()
    try:
        cycle(directory, WARM)
        gc.collect()
        files, rss, traced = process.num_fds(), process.memory_info().rss, tracemalloc.get_traced_memory()[0]
        for number in range(WARM + 1, CYCLES):
            jobs += cycle(directory, number)
        gc.collect()
        after = process.num_fds(), process.memory_info().rss, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    print(f"{CYCLES} cycles, {jobs} jobs besides flush and compact")
    print(f"open files {files} -> {after[0]}, RSS {rss >> 10} -> {after[1] >> 10} KiB", end=", ")
    print(f"Python's memory {traced >> 10} -> {after[2] >> 10} KiB")
    assert jobs > CYCLES // 2
    assert after[0] == files
    assert after[2] < traced + _GROWTH
    assert after[1] < rss + 5 * 1024 * 1024
    assert len(os.listdir(directory)) < 10
