"""The worker as a node starts it: `python -m kvstore.server.worker_process LIFELINE`."""

from __future__ import annotations

from kvstore.lsm import worker

if __name__ == "__main__":
    worker.main()
