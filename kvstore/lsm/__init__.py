"""The storage engine, usable without the rest of kvstore: `from kvstore.lsm import Engine`."""

from kvstore.lsm.disk import DiskFileSystem
from kvstore.lsm.engine import Engine, EngineStatistics, Sync
from kvstore.lsm.filesystem import FileSystem
from kvstore.lsm.jobs import (
    CompactionJob,
    FlushJob,
    Job,
    JobResult,
    decode_job,
    decode_result,
    encode_job,
    encode_result,
    run_job,
)
from kvstore.lsm.memory_filesystem import Fate, MemoryFileSystem, SimulatedCrash
from kvstore.lsm.options import Options

__all__ = [
    "CompactionJob",
    "DiskFileSystem",
    "Engine",
    "EngineStatistics",
    "Fate",
    "FileSystem",
    "FlushJob",
    "Job",
    "JobResult",
    "MemoryFileSystem",
    "Options",
    "SimulatedCrash",
    "Sync",
    "decode_job",
    "decode_result",
    "encode_job",
    "encode_result",
    "run_job",
]
