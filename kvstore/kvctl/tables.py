"""Rows for people: as a table of as many columns as fit, or one below the other where a table is too wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from kvstore.kvctl.output import harmless, note, say, write

Row = Mapping[str, object]

_PIPE_WIDTH = 200
_HEADERS = {"mb": "MB"}


def console() -> Console:
    """Where tables are printed; whole lines, whatever the width of a pipe."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def show(rows: Sequence[Row], columns: Sequence[str], keep: int) -> None:
    """Print rows under as many of their columns as fit, the first `keep` at least; else as lists."""
    where = console()
    shown = fitting(rows, columns, keep, where)
    if shown is None:
        show_lists(rows, columns)
        return
    with where.capture() as captured:
        where.print(table(rows, shown))
    write(captured.get().encode())
    if hidden := [column for column in filled(rows, columns) if column not in shown]:
        note(f"not shown for want of room: {', '.join(map(_header, hidden))}; -o json has all")


def fitting(rows: Sequence[Row], columns: Sequence[str], keep: int, where: Console) -> list[str] | None:
    """The columns, without as many of the last as do not fit in; None if not even the first `keep` do."""
    wanted = filled(rows, columns)
    for count in range(len(wanted), min(keep, len(wanted)) - 1, -1):
        if _width(table(rows, wanted[:count]), where) <= where.width:
            return wanted[:count]
    return None


def show_lists(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Print each row as lines of column and value."""
    names = filled(rows, columns)
    indent = max(len(_header(name)) for name in names) + 2
    for number, row in enumerate(rows):
        if number:
            say("")
        for name in names:
            say(f"{_header(name) + ':':<{indent}}{harmless(_cell(row.get(name)))}")


def filled(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """The columns that have something in any row; all, if there is nothing at all."""
    found = [column for column in columns if any(row.get(column) is not None for row in rows)]
    return found or list(columns)


def table(rows: Sequence[Row], columns: Sequence[str], title: str | None = None) -> Table:
    """Rows under their columns, those left out that have nothing in any row; numbers to the right.

    A cell that is too wide for the terminal goes on in the next line: nothing of it is cut off.
    """
    shown = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0)
    )
    names = filled(rows, columns)
    for name in names:
        found = [row[name] for row in rows if row.get(name) is not None]
        numeric = bool(found) and all(isinstance(value, int | float) for value in found)
        shown.add_column(_header(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(harmless(_cell(row.get(name)))) for name in names))
    return shown


def _width(shown: RenderableType, where: Console) -> int:
    """What it needs for each cell to be in one line."""
    return Measurement.get(where, where.options.update(max_width=10_000), shown).maximum


def _header(column: str) -> str:
    return _HEADERS.get(column, column.replace("_", " "))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
