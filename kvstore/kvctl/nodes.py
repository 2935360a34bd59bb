"""`kvctl status` and `ring`: what the nodes say of themselves and of each other."""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from kvstore.config import Limits
from kvstore.errors import KVError
from kvstore.kvctl.failures import INCOMPLETE
from kvstore.kvctl.groups import CommandGroup
from kvstore.kvctl.invocation import Invocation
from kvstore.kvctl.key_argument import as_json, key_bytes, key_forms
from kvstore.kvctl.output import flush, note, say, tell
from kvstore.kvctl.setting_differences import setting_differences
from kvstore.ring import ClusterState, fallbacks, partition_of, preference_list, token
from kvstore.versions import BucketName, UserKey

if TYPE_CHECKING:
    from kvstore.client.status import NodeStatus
    from kvstore.kvctl.tables import Row

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
    "state",
    "address",
    "damaged",
    "hints",
    "unproven",
    "zone",
    "host",
    "entries",
    "mb",
    "proof_s",
)
"""In tables, the last ones if there is room; all fit into 80 characters. JSON has all fields."""
KEPT_COLUMNS = 4
"""The first of them make a table that is worth having."""


@click.command()
@click.option("--check", is_flag=True, help="End with exit code 5 and say why if something is wrong.")
@click.pass_obj
def status(session: Invocation, check: bool) -> None:
    """Show every member: as the others see it, and what it says of itself.

    JSON has more of each node: its pid, figures of its engine (sizes, amplification, use of filters and
    cache), its load (requests under way, what waits for other nodes and for clients), and all counters.

    \b
    Examples:
      kvctl status
      kvctl status --check >/dev/null || echo "something is wrong"
      kvctl -o json status
    """
    with session.connect() as client:
        answers = client.status()
    rows = status_rows(answers)
    session.show(rows, COLUMNS, KEPT_COLUMNS)
    if not session.json:
        for difference in differences_of(answers):
            say(difference)
    problems = problems_of(answers, rows) if check else []
    for problem in problems:
        note(f"kvctl: {problem}")
    if problems:
        sys.exit(INCOMPLETE)


@click.group(cls=CommandGroup)
def watch() -> None:
    """Show something again and again, until Ctrl-C."""


@watch.command("status")
@click.option(
    "--interval",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="Seconds from one to the next.",
)
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many.")
@click.pass_obj
def watch_status(session: Invocation, interval: float, count: int | None) -> None:
    """Show `kvctl status` again and again; with -o json a line of JSON each time.

    \b
    Examples:
      kvctl watch status
      kvctl -o json watch status --interval 10 | tee -a status.jsonl
    """
    with session.connect() as client:
        for number in itertools.count(1):
            rows = status_rows(client.status())
            if session.json:
                session.show_json_line({"time_ms": int(time.time() * 1000), "nodes": rows})
            else:
                if sys.stdout.isatty():
                    click.clear()
                session.show(rows, COLUMNS, KEPT_COLUMNS)
            flush()
            if number == count:
                return
            time.sleep(interval)


def problems_of(answers: Mapping[str, NodeStatus | KVError], rows: Sequence[Row]) -> list[str]:
    """What is wrong with the nodes: who does not answer or is not seen, damage, what is dropped."""
    problems = [f"{row['node']} is {row['state']}" for row in rows if row["state"] != "alive"]
    for node, answer in sorted(answers.items()):
        if isinstance(answer, KVError):
            problems.append(f"{node} does not tell: {answer}")
            continue
        if damaged := answer.engine.quarantined:
            problems.append(f"{node} has {damaged} damaged blocks or tables in quarantine")
        if answer.refetching_from:
            problems.append(f"{node} refetches what was damaged from {', '.join(answer.refetching_from)}")
        if defects := answer.counters.defects:
            problems.append(f"{node} has met {defects} defects of its own: see its log")
    return problems


def differences_of(answers: Mapping[str, NodeStatus | KVError]) -> list[str]:
    """Which nodes have other settings than most, and which."""
    return [
        f"{node} has another setting: {name} is {text}"
        for node, settings in setting_differences(answers).items()
        for name, text in settings.items()
    ]


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
        "host": (seen[0].host or None) if seen else None,
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
        "pid": status.pid,
        "entries": engine.entries,
        "tables": engine.tables,
        "mb": round((engine.table_bytes + engine.wal_bytes) / 1e6, 1),
        "hints": sum(hints.count for hints in status.hints),
        "unproven": status.anti_entropy.unproven,
        "proof_s": round(status.anti_entropy.oldest),
        "damaged": engine.quarantined,
        "puts": counters.puts,
        "gets": counters.gets,
        "refetching_from": list(status.refetching_from),
        "coming": status.transfers.coming,
        "coming_proven": status.transfers.proven,
        "engine": asdict(status.engine),
        "counters": asdict(counters),
        "load": {name: getattr(status, name) for name in _LOAD},
    }


@click.command()
@click.option("--key", nargs=2, metavar="BUCKET KEY", help="Show where one key lives.")
@key_forms("KEY")
@click.pass_obj
def ring(session: Invocation, key: tuple[str, str] | None, key_form: str | None) -> None:
    """Show the ring: how many partitions each node holds, or where one key lives.

    \b
    Examples:
      kvctl ring
      kvctl ring --key carts user:1
    """
    place = (key[0], key_bytes(key[1], key_form)) if key is not None else None
    if place is not None:
        Limits().check_bucket(place[0])
        Limits().check_key(place[1])
    with session.connect() as client:
        state = client.ring()
    if place is None:
        _show_members(session, state)
    else:
        _show_key(session, state, *place)


def _show_members(session: Invocation, state: ClusterState) -> None:
    lists = state.ring.replica_lists
    first = Counter(nodes[0] for nodes in lists)
    held = Counter(node for nodes in lists for node in nodes)
    rows: list[Row] = [
        {
            "node": member.node,
            "address": member.address,
            "zone": member.zone or None,
            "host": member.host or None,
            "first_in": first[member.node],
            "replica_of": held[member.node],
        }
        for member in state.members
    ]
    if session.json:
        session.show_json({"cluster": state.cluster_id, "epoch": state.epoch, "members": rows})
        return
    tell(f"cluster {state.cluster_id}, epoch {state.epoch}, {state.ring.partitions} partitions")
    session.show(rows, ("node", "address", "zone", "host", "first_in", "replica_of"), keep=6)


def _show_key(session: Invocation, state: ClusterState, bucket: str, key: bytes) -> None:
    key_token = token(BucketName(bucket), UserKey(key))
    partition = partition_of(key_token, state.ring.partitions)
    n = state.bucket(bucket).n
    primaries = preference_list(state.ring, partition, n)
    hosts = [member.host or None for node in primaries if (member := state.member(node))]
    found = (
        {"bucket": bucket}
        | as_json("key", key)
        | {
            "token": f"{key_token:016x}",
            "partition": partition,
            "primaries": list(primaries),
            "hosts": hosts,
            "fallbacks": list(fallbacks(state.ring, partition, n)),
        }
    )
    if session.json:
        session.show_json(found)
        return
    if not any(hosts):
        del found["hosts"]
    for field, value in found.items():
        words = [each or "-" for each in value] if isinstance(value, list) else [str(value)]
        say(f"{field}: {' '.join(words) or '-'}")
