"""The storage engine, usable without the rest of kvstore.

`Store` runs by itself; `Engine` is the part that does no work of its own accord, for those who drive it.
"""

from kvstore.lsm.disk import DiskFileSystem
from kvstore.lsm.engine import Engine, EngineStatistics
from kvstore.lsm.filesystem import FileSystem
from kvstore.lsm.jobs import (
    CompactionJob,
    FlushJob,
    Job,
    JobResult,
    RemovalJob,
    decode_job,
    decode_result,
    encode_job,
    encode_result,
    run_job,
)
from kvstore.lsm.memory_filesystem import Fate, MemoryFileSystem, SimulatedCrash
from kvstore.lsm.options import Compaction, Durability, Options
from kvstore.lsm.quarantine import Fence
from kvstore.lsm.segments import Sync
from kvstore.lsm.snapshot import Snapshot
from kvstore.lsm.store import Store

__all__ = [
    "Compaction",
    "CompactionJob",
    "DiskFileSystem",
    "Durability",
    "Engine",
    "EngineStatistics",
    "Fate",
    "Fence",
    "FileSystem",
    "FlushJob",
    "Job",
    "JobResult",
    "MemoryFileSystem",
    "Options",
    "RemovalJob",
    "SimulatedCrash",
    "Snapshot",
    "Store",
    "Sync",
    "decode_job",
    "decode_result",
    "encode_job",
    "encode_result",
    "run_job",
]
