"""`kvctl status` and `ring`: what the nodes say of themselves and of each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from kvstore.errors import KVError
from kvstore.kvctl.invocation import Invocation, Row
from kvstore.kvctl.setting_differences import setting_differences
from kvstore.ring import ClusterState, fallbacks, partition_of, preference_list, token

if TYPE_CHECKING:
    from kvstore.client.status import NodeStatus

_LOAD = (
    "in_flight",
    "in_flight_bytes",
    "most_in_flight_bytes",
    "queued_bytes",
    "most_queued_bytes",
    "most_reply_bytes",
)
COLUMNS = (
    "node",
    "address",
    "zone",
    "state",
    "entries",
    "MB",
    "hints",
    "unproven",
    "proof s",
    "damaged",
)
"""In tables: they fit into 80 characters. JSON has all fields."""


@click.command()
@click.pass_obj
def status(session: Invocation) -> None:
    """Show every member: as the others see it, and what it says of itself.

    JSON has more of each node: its pid, figures of its engine (sizes, amplification, use of filters and
    cache), its load (requests under way, what waits for other nodes and for clients), and all counters.

    \b
    Examples:
      kvctl status
      kvctl -o json status
    """
    with session.connect() as client:
        answers = client.status()
    session.show(status_rows(answers), COLUMNS)
    if not session.json:
        for node, settings in setting_differences(answers).items():
            for name, text in settings.items():
                click.echo(f"{node} has another setting: {name} is {text}")


def status_rows(answers: Mapping[str, NodeStatus | KVError]) -> list[Row]:
    """A row for each member; a node that does not answer is described by the others."""
    statuses = {node: a for node, a in answers.items() if not isinstance(a, KVError)}
    differences = setting_differences(answers)
    return [_row(node, statuses) | {"settings_differ": differences.get(node, {})} for node in sorted(answers)]


def _row(node: str, statuses: Mapping[str, NodeStatus]) -> dict[str, object]:
    seen = [m for status in statuses.values() for m in status.members if m.node == node]
    views = Counter(
        m.status.name.lower()
        for name, status in statuses.items()
        for m in status.members
        if m.node == node and name != node
    )
    row: dict[str, object] = {
        "node": node,
        "address": seen[0].address if seen else None,
        "zone": (seen[0].zone or None) if seen else None,
        "state": _state(node in statuses, views),
    }
    if node in statuses:
        row |= _own_words(statuses[node])
        if statuses[node].engine.full:
            row["state"] = f"{row['state']}, disk full"
    return row


def _state(answers: bool, views: Counter[str]) -> str:
    """How the others see a node; if they differ, how many see what."""
    if not views:
        return "alive" if answers else "not reachable"
    if len(views) == 1:
        return next(iter(views))
    return ", ".join(f"{count} {name}" for name, count in sorted(views.items()))


def _own_words(status: NodeStatus) -> dict[str, object]:
    engine, counters = status.engine, status.counters
    return {
        "pid": str(status.pid),
        "entries": engine.entries,
        "tables": engine.tables,
        "MB": round((engine.table_bytes + engine.wal_bytes) / 1e6, 1),
        "hints": sum(hints.count for hints in status.hints),
        "unproven": status.anti_entropy.unproven,
        "proof s": round(status.anti_entropy.oldest),
        "damaged": engine.quarantined,
        "puts": counters.puts,
        "gets": counters.gets,
        "refetching from": list(status.refetching_from),
        "engine": asdict(status.engine),
        "counters": asdict(counters),
        "load": {name: getattr(status, name) for name in _LOAD},
    }


@click.command()
@click.option("--key", nargs=2, metavar="BUCKET KEY", help="Show where one key lives.")
@click.pass_obj
def ring(session: Invocation, key: tuple[str, str] | None) -> None:
    """Show the ring: how many partitions each node holds, or where one key lives.

    \b
    Examples:
      kvctl ring
      kvctl ring --key carts user:1
    """
    with session.connect() as client:
        state = client.ring()
    if key is None:
        _show_members(session, state)
    else:
        _show_key(session, state, *key)


def _show_members(session: Invocation, state: ClusterState) -> None:
    lists = state.ring.replica_lists
    first = Counter(nodes[0] for nodes in lists)
    held = Counter(node for nodes in lists for node in nodes)
    rows: list[Row] = [
        {
            "node": member.node,
            "address": member.address,
            "zone": member.zone or None,
            "first in": first[member.node],
            "replica of": held[member.node],
        }
        for member in state.members
    ]
    if session.json:
        session.show_json({"cluster": state.cluster_id, "epoch": state.epoch, "members": rows})
        return
    click.echo(f"cluster {state.cluster_id}, epoch {state.epoch}, {state.ring.partitions} partitions")
    session.show(rows, ("node", "address", "zone", "first in", "replica of"))


def _show_key(session: Invocation, state: ClusterState, bucket: str, key: str) -> None:
    key_token = token(bucket, key.encode())
    partition = partition_of(key_token, state.ring.partitions)
    n = state.bucket(bucket).n
    found: dict[str, object] = {
        "bucket": bucket,
        "key": key,
        "token": f"{key_token:016x}",
        "partition": partition,
        "primaries": list(preference_list(state.ring, partition, n)),
        "fallbacks": list(fallbacks(state.ring, partition, n)),
    }
    if session.json:
        session.show_json(found)
        return
    for field, value in found.items():
        click.echo(f"{field}: {value if not isinstance(value, list) else ' '.join(value) or '-'}")
