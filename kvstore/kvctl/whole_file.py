"""Files that are there when they are whole, and not before: what stood there stays until then."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import mkstemp
from types import TracebackType
from typing import Protocol, Self

from kvstore.kvctl import output
from kvstore.kvctl.output import output_errors

_MODE = 0o666
"""Of a new file, before the user's umask."""


class Target(Protocol):
    """What an export is written to."""

    def write(self, data: bytes) -> None:
        """Append; raises OutputFailed, or BrokenPipeError when nobody reads."""

    def keep(self, incomplete: bool) -> Path | None:
        """It is written to its end. Returns where it is kept, if not under its own name."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_target(path: str) -> Target:
    """A file that replaces `path` in the end; what is no plain file, and standard output (-), at once."""
    # not by `realpath`: /dev/fd/63 of a shell's >(gzip) leads to a pipe, which has no name
    given = Path(path)
    if path == "-" or (given.exists() and not given.is_file()):
        return _Stream(None if path == "-" else given)
    return WholeFile(path)


class _Stream:
    """Standard output, or something like a pipe."""

    def __init__(self, path: Path | None) -> None:
        self._name = str(path or "the output")
        with output_errors(self._name):
            self._file = path.open("wb") if path is not None else None

    def write(self, data: bytes) -> None:
        """See Target."""
        if self._file is None:
            output.write(data)
            output.flush()  # whoever reads has it, and is known to read
            return
        with output_errors(self._name):
            self._file.write(data)
            self._file.flush()

    def keep(self, incomplete: bool) -> None:
        """See Target: what is written is written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with output_errors(self._name):
                self._file.close()


class WholeFile:
    """A new file beside the one that it is to replace; unless it is kept, it is deleted."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._target = Path(os.path.realpath(path))  # a symbolic link stays, and leads to the new file
        with output_errors(path):
            opened, self._new = mkstemp(".new", f".{self._target.name}.", self._target.parent)
        self._file = os.fdopen(opened, "wb")

    def write(self, data: bytes) -> None:
        """See Target."""
        with output_errors(self._path):
            self._file.write(data)

    def keep(self, incomplete: bool) -> Path | None:
        """See Target: what is incomplete never replaces a file that is there."""
        aside = Path(f"{self._target}.incomplete") if incomplete and self._target.exists() else None
        with output_errors(str(aside or self._path)):
            self._file.flush()
            os.fchmod(self._file.fileno(), self._mode())
            os.fsync(self._file.fileno())
            os.replace(self._new, aside or self._target)
            sync_directory(self._target.parent)
        return aside

    def _mode(self) -> int:
        """That of the file it replaces, else what the user's umask leaves."""
        if self._target.exists():
            return self._target.stat().st_mode & 0o777
        umask = os.umask(0)
        os.umask(umask)
        return _MODE & ~umask

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        Path(self._new).unlink(missing_ok=True)
        try:
            self._file.close()
        except OSError:
            if error is None:  # else what could not be written has been told already
                raise


def sync_directory(directory: Path) -> None:
    """Make a rename durable."""
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
