"""`kvctl hints`: what nodes keep for others that were away, and what they have dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from kvstore.errors import KVError
from kvstore.kvctl.invocation import Invocation
from kvstore.kvctl.output import note

if TYPE_CHECKING:
    from kvstore.client.status import NodeStatus
    from kvstore.kvctl.tables import Row

_COLUMNS = ("node", "target", "pending", "bytes", "oldest_s", "delivered")
_UNUSUAL = ("rerouted", "overflowed", "expired", "unwritable")
"""Columns of the table when there is something to tell, so that it usually fits into 80 characters."""


@click.command()
@click.pass_obj
def hints(session: Invocation) -> None:
    """Show the hints each node keeps, by target, and what became of others since it started.

    Dropped are those that overflowed (no room), expired, or that the disk did not take (unwritable); the
    table has such a column when there are any. Anti-entropy repairs what they held.

    \b
    Examples:
      kvctl hints
      kvctl -o json hints
    """
    with session.connect() as client:
        answers = client.status()
    rows = hint_rows(answers)
    session.show(rows, hint_columns(rows), keep=3)
    for node, answer in sorted(answers.items()):
        if isinstance(answer, KVError):
            note(f"kvctl: {node} does not tell: {answer}")


def hint_rows(answers: Mapping[str, NodeStatus | KVError]) -> list[Row]:
    """A row for each node, or for each target that it keeps hints for."""
    statuses = [(node, a) for node, a in sorted(answers.items()) if not isinstance(a, KVError)]
    return [row for node, status in statuses for row in _rows(node, status)]


def hint_columns(rows: Sequence[Row]) -> list[str]:
    """The columns of a table of these rows."""
    return [*_COLUMNS, *(column for column in _UNUSUAL if any(row.get(column) for row in rows))]


def _rows(node: str, status: NodeStatus) -> list[Row]:
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
            "oldest_s": round(kept.oldest),
        }
        for kept in status.hints
    ]
    # the totals are the node's: once, beside its first target
    return [{**totals, **row} if i == 0 else row for i, row in enumerate(pending)] or [totals]
