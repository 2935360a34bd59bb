"""How far something is: a bar on a terminal, a JSON object a line for programs, nothing in a log."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    FileSizeColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column

_JSON_SECONDS = 1.0
"""Between two lines of progress."""

Advance = Callable[[int], None]
"""Called with the bytes done since the last call."""


def progress_bar(ends: bool = True) -> Progress:
    """A bar on a terminal, or what is done if nobody knows where it `ends`; nothing in a pipe or a log."""
    columns: list[ProgressColumn] = [FileSizeColumn(_whole())]
    if ends:
        percentage = TextColumn("{task.percentage:>3.0f}%", table_column=_whole())
        columns = [BarColumn(), percentage, TimeRemainingColumn(table_column=_whole())]
    return Progress(
        TextColumn("{task.description}", table_column=_whole()),
        *columns,
        TransferSpeedColumn(_whole()),
        disable=not sys.stderr.isatty(),
        console=Console(stderr=True),
        transient=True,
    )


def _whole() -> Column:
    """On a narrow terminal the bar becomes shorter, and nothing else is broken."""
    return Column(no_wrap=True)


@contextmanager
def progress(what: str, total: int | None, as_json: bool) -> Iterator[Advance]:
    """Show how far it is with `total` bytes, None if nobody knows how many; on standard error."""
    if as_json:
        yield _JsonProgress(what, total).advance
        return
    with progress_bar(ends=total is not None) as bar:
        task = bar.add_task(what, total=total)
        yield lambda size: bar.advance(task, size)


class _JsonProgress:
    def __init__(self, what: str, total: int | None) -> None:
        self._what = what
        self._total = total
        self._bytes = 0
        self._began = self._told = time.monotonic()

    def advance(self, size: int) -> None:
        self._bytes += size
        now = time.monotonic()
        if now - self._told >= _JSON_SECONDS:
            self._told = now
            line = {
                "event": self._what,
                "bytes": self._bytes,
                "total_bytes": self._total,
                "seconds": round(now - self._began, 1),
            }
            sys.stderr.write(json.dumps(line) + "\n")
            sys.stderr.flush()
