"""`kvctl hints`: what nodes keep for others that were away, and what they have dropped."""

from __future__ import annotations

from collections.abc import Mapping

import click

from kvstore.client.status import GetStatusResponse
from kvstore.errors import KVError
from kvstore.kvctl.session import Row, Session

COLUMNS = (
    "node",
    "target",
    "pending",
    "bytes",
    "oldest s",
    "delivered",
    "rerouted",
    "overflowed",
    "expired",
    "unwritable",
)


@click.command()
@click.pass_obj
def hints(session: Session) -> None:
    """Show the hints each node keeps, by target, and what became of others since it started.

    Dropped are those that overflowed (no room), expired, or that the disk did not take; anti-entropy brings
    home what they held.

    \b
    Examples:
      kvctl hints
      kvctl -o json hints
    """
    with session.connect() as client:
        answers = client.status()
    session.show(hint_rows(answers), COLUMNS)
    for node, answer in sorted(answers.items()):
        if isinstance(answer, KVError):
            click.echo(f"kvctl: {node} does not tell: {answer}", err=True)


def hint_rows(answers: Mapping[str, GetStatusResponse | KVError]) -> list[Row]:
    """A row for each node, or for each target that it keeps hints for."""
    statuses = [(node, a) for node, a in sorted(answers.items()) if isinstance(a, GetStatusResponse)]
    return [row for node, status in statuses for row in _rows(node, status)]


def _rows(node: str, status: GetStatusResponse) -> list[Row]:
    counters = status.counters
    totals: Row = {
        "node": node,
        "pending": 0,
        "bytes": 0,
        "delivered": counters.hints_delivered,
        "rerouted": counters.hints_rerouted,
        "overflowed": counters.hints_overflowed,
        "expired": counters.hints_expired,
        "unwritable": counters.hints_unwritable,
    }
    pending: list[Row] = [
        {
            "node": node,
            "target": kept.target,
            "pending": kept.count,
            "bytes": kept.bytes,
            "oldest s": round(kept.oldest_s),
        }
        for kept in status.hints
    ]
    # the totals are the node's: once, beside its first target
    return [{**totals, **row} if i == 0 else row for i, row in enumerate(pending)] or [totals]
