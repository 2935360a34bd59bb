"""Stores of nodes that do not run: where they are, and what their errors come to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from kvstore.errors import StorageError
from kvstore.kvctl.failures import STORAGE
from kvstore.kvctl.output import note
from kvstore.server.data_directory import IDENTITY, find_store

stored_directory = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
"""The DIR of a command."""


@contextmanager
def storage_errors() -> Iterator[None]:
    """What the disk or the store is to blame for is one line and an exit code of its own."""
    try:
        yield
    except BrokenPipeError:
        raise
    except StorageError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")


def _fail(reason: str) -> None:
    note(f"kvctl: {reason}")
    sys.exit(STORAGE)


def store_in(directory: Path) -> Path:
    """The store in a directory, which may be that of a node of a local cluster: its data is one below."""
    below = directory / "data"
    return find_store(below if (below / IDENTITY).exists() else directory)


def size_of(store: Path) -> int:
    """Bytes of its files."""
    return sum(path.stat().st_size for path in store.iterdir())
