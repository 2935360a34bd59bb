"""Where kvctl writes: a terminal gets nothing that would steer it, a pipe or a file the bytes as they are."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters except tab and line feed, C1 among them, and what turns the direction of writing."""


class OutputFailed(Exception):
    """What was to be written could not be: a full disk, a directory that is not there."""

    def __init__(self, target: str, error: OSError) -> None:
        super().__init__(f"{target} cannot be written: {error.strerror or error}")


def harmless(text: str) -> str:
    """Text with whatever would steer a terminal as an escape (which JSON reads back as what it was)."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def say(text: str) -> None:
    """A line on standard output: harmless on a terminal, unchanged in a pipe or a file."""
    shown = harmless(text) if sys.stdout.isatty() else text
    write(shown.encode(errors="surrogateescape") + b"\n")


def tell(text: str) -> None:
    """A sentence on standard output, for people."""
    say(broken(text, sys.stdout))


def note(text: str) -> None:
    """A sentence on standard error, for people."""
    flush()
    sys.stderr.write(broken(harmless(text), sys.stderr) + "\n")
    sys.stderr.flush()


def broken(text: str, stream: TextIO) -> str:
    """As lines that end between words, where the terminal is too narrow and would break within one."""
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def write(data: bytes) -> None:
    """Bytes on standard output, as they are. Raises BrokenPipeError when nobody reads, OutputFailed."""
    with output_errors():
        sys.stdout.buffer.write(data)
        if sys.stdout.isatty():
            sys.stdout.flush()


def flush() -> None:
    """See that all is written; raises as `write` does."""
    with output_errors():
        sys.stdout.flush()


@contextmanager
def output_errors(target: str = "the output") -> Iterator[None]:
    """What is raised here by the file that is written to becomes OutputFailed."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputFailed(target, error) from error


def silence(stream: TextIO) -> None:
    """Let the interpreter's last flush of a stream that nobody can write to go nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
