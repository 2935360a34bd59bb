"""What kvctl reads: files, and standard input if there is one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click


class InputFailed(Exception):
    """What was to be read could not be."""


@contextmanager
def input_errors(name: str) -> Iterator[None]:
    """What is raised here by the file that is read becomes InputFailed."""
    try:
        yield
    except OSError as error:
        raise InputFailed(f"{name} cannot be read: {error.strerror or error}") from error


class InputFile(click.File):
    """A file to read bytes from; - is standard input, which may be closed."""

    def __init__(self) -> None:
        super().__init__("rb")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> IO[Any]:
        """See click.ParamType."""
        if value == "-" and sys.stdin is None:
            self.fail("standard input is closed", param, ctx)
        file: IO[Any] = super().convert(value, param, ctx)
        if ctx is not None and value != "-":
            # click closes it only if the arguments after it are good
            ctx.find_root().call_on_close(file.close)
        return file


class CheckedInput:
    """A file whose errors are InputFailed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readline(self, size: int = -1, /) -> bytes:
        """As of a file."""
        with input_errors(self._file.name):
            return self._file.readline(size)
