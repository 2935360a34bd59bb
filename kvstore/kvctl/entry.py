"""Where the command `kvctl` begins: Ctrl-C ends it without a word while there is nothing to be told."""

from __future__ import annotations

import signal


def main() -> None:
    """Run kvctl. While its modules are loaded, and when it has ended, an interrupt is no traceback."""
    heeds = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # unlike one that nohup started
    if heeds:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kvstore.kvctl.main import main as run  # here: it takes a tenth of a second

    if heeds:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run(own_process=True)
    finally:
        if heeds:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
