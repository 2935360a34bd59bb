"""The storage engine, usable without the rest of kvstore: it does no work of its own accord.

`kvstore.store` has the disk for it, and `Store`, which drives it.
"""

from kvstore.lsm.commit import CommitShell, GroupCommit, Synced
from kvstore.lsm.config import Compaction, Durability, Options
from kvstore.lsm.engine import Engine
from kvstore.lsm.filesystem import FileSystem
from kvstore.lsm.job_codec import decode_job, decode_result, encode_job, encode_result
from kvstore.lsm.job_queue import JobQueue, JobShell
from kvstore.lsm.jobs import run_job
from kvstore.lsm.memory_filesystem import Fate, MemoryFileSystem, SimulatedCrash
from kvstore.lsm.messages import CompactionJob, FlushJob, Job, JobResult, RemovalJob
from kvstore.lsm.quarantine import Fence
from kvstore.lsm.segments import Sync
from kvstore.lsm.snapshot import Snapshot
from kvstore.lsm.statistics import EngineStatistics

__all__ = [
    "CommitShell",
    "Compaction",
    "CompactionJob",
    "Durability",
    "Engine",
    "EngineStatistics",
    "Fate",
    "Fence",
    "FileSystem",
    "FlushJob",
    "GroupCommit",
    "Job",
    "JobQueue",
    "JobResult",
    "JobShell",
    "MemoryFileSystem",
    "Options",
    "RemovalJob",
    "SimulatedCrash",
    "Snapshot",
    "Sync",
    "Synced",
    "decode_job",
    "decode_result",
    "encode_job",
    "encode_result",
    "run_job",
]
