"""Help that has all of each command's first sentence, and fits into narrow terminals."""

from __future__ import annotations

from collections.abc import Iterable

import click


class _Formatter(click.HelpFormatter):
    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """See click.HelpFormatter: the first column gets half of the width at most, not always 30."""
        super().write_dl(list(rows), min(col_max, self.width // 2), col_spacing)


class FittingContext(click.Context):
    """The context of a command whose help fits into its terminal."""

    formatter_class = _Formatter


class CommandGroup(click.Group):
    """A group that cuts no line of help off, as click's own does after some forty characters."""

    context_class = FittingContext

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click.Group."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl([(n, c.get_short_help_str(limit=1000)) for n, c in commands.items() if c])
