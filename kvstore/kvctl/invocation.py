"""What every command shares: endpoints, timeout, form of output."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click
from rich import box
from rich.console import Console
from rich.table import Table

from kvstore.client.synchronous import Client, connect
from kvstore.errors import ConfigError
from kvstore.local.cluster import LocalCluster

DEFAULT_ENDPOINTS = "127.0.0.1:7001"

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Invocation:
    """The global options of one call of kvctl."""

    endpoints: str | None
    timeout: float
    output: str

    def connect(self) -> Client:
        """A client of the cluster that was named, else of the local one here, else of the usual port."""
        return connect(self.endpoints or _local_endpoints() or DEFAULT_ENDPOINTS, timeout=self.timeout)

    @property
    def json(self) -> bool:
        """Whether JSON was asked for."""
        return self.output == "json"

    def show(self, rows: Sequence[Row], columns: Sequence[str]) -> None:
        """Print rows as a table or as JSON."""
        if self.json:
            self.show_json(list(rows))
        else:
            console().print(table(rows, columns))

    def show_json(self, value: object) -> None:
        """Print a value as JSON."""
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def console() -> Console:
    """Where tables are printed; whole lines, whatever the width of a pipe."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=200)


def table(rows: Sequence[Row], columns: Sequence[str], title: str | None = None) -> Table:
    """Rows under their columns, those left out that have nothing in any row; numbers to the right.

    A cell that is too wide for the terminal goes on in the next line: nothing of it is cut off.
    """
    shown = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0)
    )
    filled = [column for column in columns if any(row.get(column) is not None for row in rows)]
    for column in filled or columns:
        found = [row[column] for row in rows if row.get(column) is not None]
        numeric = bool(found) and all(isinstance(value, int | float) for value in found)
        shown.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(_cell(row.get(column)) for column in filled))
    return shown


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _local_endpoints() -> str | None:
    try:
        return LocalCluster.load().endpoints
    except ConfigError:
        return None
