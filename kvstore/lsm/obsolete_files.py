"""Files that nothing needs any more: replaced tables, flushed segments of the log, output of failed jobs."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from kvstore.errors import StorageError
from kvstore.lsm.filesystem import FileSystem
from kvstore.lsm.messages import RemovalJob


class ObsoleteFiles:
    """They wait here for their removal; one job removes at a time, and what it could not comes back."""

    def __init__(self, fs: FileSystem, directory: str) -> None:
        self._fs = fs
        self._directory = directory
        self.names: list[str] = []
        """Those that no job has been given."""
        self.removing = False
        """Whether a job is under way."""

    def add(self, names: Iterable[str]) -> None:
        """Nothing needs these any more."""
        self.names += names

    def job(self) -> RemovalJob:
        """Remove all that wait; there is one at least, and no other job is under way."""
        self.removing = True
        names, self.names = tuple(self.names), []
        return RemovalJob(self._directory, names)

    def removed(self) -> None:
        """The job is done."""
        self.removing = False

    def not_removed(self, job: RemovalJob) -> None:
        """The job could not be done."""
        self.removing = False
        self.names += job.names

    def remove_now(self) -> None:
        """Remove those that wait, here and now. What cannot be removed is left to the next job."""
        for name in tuple(self.names):
            with suppress(StorageError):
                self._fs.remove(f"{self._directory}/{name}")
                self.names.remove(name)
