"""The worker as a node starts it: `python -m kvstore.server.worker_process LIFELINE`.

LIFELINE is the reading end of a pipe whose other end only the node holds. It closes with the node, however
that ends, and the worker ends that moment, in the middle of a job: the node's next life may give its
file's number to another file.
"""

from __future__ import annotations

import os
import sys
import threading

from kvstore.lsm import worker


def _end_with_node(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(0)


def main() -> None:
    """Do jobs until the node ends, or its input does."""
    threading.Thread(target=_end_with_node, args=(int(sys.argv[1]),), daemon=True).start()
    worker.main()


if __name__ == "__main__":
    main()
