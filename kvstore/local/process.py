"""One `kvnode` process of a local cluster, found again by the file that remembers it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

_STOP_SECONDS = 30.0
"""More than the time after which a node ends all the same."""
_KILL_SECONDS = 30.0
_POLL_SECONDS = 0.005
_children: dict[int, subprocess.Popen[bytes]] = {}
"""Processes started by this one, which has to reap them."""


class _Started(msgspec.Struct, frozen=True):
    """What is remembered of a process: its id, and the time of its start in seconds since 1970."""

    pid: int
    started: float


@dataclass(frozen=True, slots=True)
class NodeProcess:
    """A node's process, running or not. `directory` holds its pid file and its log."""

    directory: Path

    @property
    def log(self) -> Path:
        """What the node has printed."""
        return self.directory / "node.log"

    @property
    def _pid_file(self) -> Path:
        return self.directory / "pid"

    def start(self, arguments: Sequence[str]) -> None:
        """Start `kvnode` with these arguments."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self.log, "ab", opener=_private) as log:
            # a session of its own: Ctrl-C in a terminal is for whoever watches, not for the nodes
            child = subprocess.Popen(
                [sys.executable, "-m", "kvstore.server", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _children[child.pid] = child
        # with its start time, so that a pid used again by another program is never taken for the node
        started = psutil.Process(child.pid).create_time()
        self._pid_file.write_bytes(msgspec.json.encode(_Started(child.pid, started)))

    def running(self) -> psutil.Process | None:
        """The process, if it runs."""
        try:
            found = msgspec.json.decode(self._pid_file.read_bytes(), type=_Started)
            process = psutil.Process(found.pid)
            return process if process.create_time() == found.started and not _ended(process) else None
        except (FileNotFoundError, ValueError, RecursionError, psutil.NoSuchProcess):
            return None

    def kill(self) -> bool:
        """End it with SIGKILL; whether it was running."""
        process = self.running()
        if process is not None:
            process.kill()
            self._ended_within(_KILL_SECONDS)
        return process is not None

    def terminate(self) -> bool:
        """Ask it to stop; whether it was running. `wait` waits for it."""
        process = self.running()
        if process is not None:
            process.terminate()
        return process is not None

    def wait(self) -> None:
        """Wait for the end of a process that was asked to stop; killed if it takes too long."""
        if not self._ended_within(_STOP_SECONDS):
            self.kill()

    def last_line(self) -> str:
        """The last line that the node has printed, to say why it does not run."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1] if lines else "it printed nothing"

    def _ended_within(self, seconds: float) -> bool:
        """Wait until it does not run any more; whether that was in time."""
        # not psutil's wait: for another's child it waits until that one reaps it
        deadline = time.monotonic() + seconds
        while self.running() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True


def _private(path: str, flags: int) -> int:
    """A log names keys and addresses: a new one is for its owner alone."""
    return os.open(path, flags, 0o600)


def _ended(process: psutil.Process) -> bool:
    """Whether a process is over: it holds no port and no lock any more."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            del _children[pid]
    # a process shows as a zombie as soon as its first thread has ended
    return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
