"""Groups of commands whose help has all of each command's first sentence."""

from __future__ import annotations

import click


class CommandGroup(click.Group):
    """A group that cuts no line of help off, as click's own does after some forty characters."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click.Group."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl([(n, c.get_short_help_str(limit=1000)) for n, c in commands.items() if c])
