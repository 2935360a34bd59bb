"""A process that writes until its disk goes away: `python -m tests.crash.power_loss_writer DIRECTORY`.

It prints each LSN that is durable, and the content it wrote follows from the LSN alone.
"""

from __future__ import annotations

import random
import sys

from kvstore.errors import StorageError
from kvstore.lsm import Engine, Options, run_job, sstable_writer
from kvstore.store import DiskFileSystem

OPTIONS = Options(memtable_bytes=24_000, block_bytes=1024, tier_tables=3, manifest_bytes=2000)
WRITE_BACK_BYTES = 500
_KEYS = 400
Batch = list[tuple[bytes, bytes | None]]


def batch_of(lsn: int) -> Batch:
    """The batch that gets this LSN, in whatever life of the store."""
    rng = random.Random(lsn)
    batch: Batch = [(b"last", b"%d" % lsn)]
    for _ in range(rng.randrange(1, 12)):
        key = b"key-%03d" % rng.randrange(_KEYS)
        batch.append((key, None if rng.random() < 0.1 else b"%d " % lsn + rng.randbytes(rng.randrange(200))))
    return batch


def main() -> None:
    """Write; several batches for each sync, jobs in between."""
    sstable_writer.WRITE_BACK_BYTES = WRITE_BACK_BYTES
    fs = DiskFileSystem()
    engine = Engine.open(fs, sys.argv[1], OPTIONS)
    rng = random.Random(engine.last_lsn)
    while True:
        for _ in range(rng.randrange(1, 6)):
            engine.write(batch_of(engine.last_lsn + 1))
        print(engine.sync(), flush=True)
        for job in engine.take_jobs():
            engine.job_done(run_job(fs, job))


if __name__ == "__main__":
    try:
        main()
    except StorageError as error:
        sys.exit(str(error))
