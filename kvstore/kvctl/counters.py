"""`kvctl counters`: what each node has counted since it started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from kvstore.errors import KVError
from kvstore.kvctl.invocation import Invocation
from kvstore.kvctl.output import note
from kvstore.quorum.counters import TOPICS

if TYPE_CHECKING:
    from kvstore.client.status import NodeStatus
    from kvstore.kvctl.tables import Row


@click.command()
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
@click.pass_obj
def counters(session: Invocation, nodes: tuple[str, ...]) -> None:
    """Show all counters of NODE..., or of every member, each since that node started.

    `sum` is of the nodes that are shown. What each counts is in docs/kvctl.md.

    \b
    Examples:
      kvctl counters
      kvctl counters n1 n3
      kvctl -o json counters
    """
    with session.connect() as client:
        answers = client.status()
    if unknown := set(nodes) - answers.keys():
        raise click.BadParameter(f"no member is called {', '.join(sorted(unknown))}")
    shown = {node: answer for node, answer in sorted(answers.items()) if node in nodes or not nodes}
    statuses = {node: answer for node, answer in shown.items() if not isinstance(answer, KVError)}
    session.show(counter_rows(statuses), ("topic", "counter", "sum", *statuses), keep=3)
    for node, answer in shown.items():
        if isinstance(answer, KVError):
            note(f"kvctl: {node} does not tell: {answer}")


def counter_rows(statuses: Mapping[str, NodeStatus]) -> list[Row]:
    """A row for each counter that is declared."""
    counted = {node: asdict(status.counters) for node, status in statuses.items()}
    return [
        {
            "topic": topic,
            "counter": name,
            "sum": sum(counts[name] for counts in counted.values()),
            **{node: counts[name] for node, counts in counted.items()},
        }
        for topic, names in TOPICS.items()
        for name in names
    ]
