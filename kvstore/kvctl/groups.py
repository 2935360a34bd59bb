"""Help that has all of each command's first sentence, and fits into narrow terminals."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import click

_ELSEWHERE = {
    "backup": "export",
    "del": "delete",
    "dump": "export",
    "health": "status",
    "info": "status",
    "keys": "scan",
    "list": "scan",
    "load": "import",
    "ls": "scan",
    "members": "status",
    "nodes": "status",
    "range": "scan",
    "remove": "delete",
    "restore": "import",
    "rm": "delete",
    "set": "put",
    "stats": "counters",
}
"""What a command is called by the tools of other stores, and here."""


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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See click.Group; a command that does not exist is refused with the one that may be meant."""
        known = self.list_commands(ctx)
        # while a shell asks for completions, nothing is refused
        if not ctx.resilient_parsing and args and args[0] not in known and not args[0].startswith("-"):
            meant = _ELSEWHERE.get(args[0])
            near = [meant] if meant in known else get_close_matches(args[0], known, 3)
            hint = f" Is {' or '.join(near)} meant?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click.Group."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl([(n, c.get_short_help_str(limit=1000)) for n, c in commands.items() if c])
