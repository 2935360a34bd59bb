"""`kvctl repair`: anti-entropy now, for everything, until all replicas are proven equal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from kvstore.client.synchronous import Client
from kvstore.errors import KVError, NoNodeAvailable
from kvstore.kvctl.failures import INCOMPLETE
from kvstore.kvctl.invocation import Invocation

if TYPE_CHECKING:
    from kvstore.client.status import AntiEntropyStatus

_POLL_SECONDS = 0.1

_Answers = Mapping[str, "AntiEntropyStatus | KVError"]


@click.command()
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    help="Seconds until it gives up waiting; the nodes go on by themselves.",
)
@click.pass_obj
def repair(session: Invocation, wait: float) -> None:
    """Compare all replicas with each other now, repair what differs, and wait until all are proven equal.

    Nodes do this all the time by themselves, at leisure. Every node must be up for it to end.

    \b
    Examples:
      kvctl repair
      kvctl -o json repair --wait 60
    """
    with session.connect() as client:
        answers = client.repair()
        _all_take_part(answers)
        left = _follow(client, answers, time.monotonic() + wait)
    pairs = sum(answer.pairs for answer in answers.values() if not isinstance(answer, KVError))
    if session.json:
        session.show_json({"pairs": pairs, "left": sum(left.values())})
    elif not left:
        click.echo(f"all replicas are equal: {pairs:,} proofs")
    if left:
        for node, count in left.items():
            click.echo(f"kvctl: not proven equal after {wait:g} s: {count} of {node}'s", err=True)
        sys.exit(INCOMPLETE)


def _all_take_part(answers: _Answers) -> None:
    """Raise NoNodeAvailable unless every node has begun."""
    silent = {node: str(answer) for node, answer in answers.items() if isinstance(answer, KVError)}
    if silent:
        raise NoNodeAvailable(silent)


def _follow(client: Client, answers: _Answers, deadline: float) -> dict[str, int]:
    """Wait until nothing is left; returns how many proofs are missing, by node."""
    with _progress() as progress:
        total = sum(_left(answer) for answer in answers.values())
        task = progress.add_task("proven equal", total=total)
        while left := {node: _left(answer) for node, answer in answers.items() if _left(answer)}:
            progress.update(task, completed=total - sum(left.values()))
            if time.monotonic() >= deadline:
                return left
            time.sleep(_POLL_SECONDS)
            answers = client.repair(start=False)
            _all_take_part(answers)
    return {}


def _left(answer: AntiEntropyStatus | KVError) -> int:
    return answer.wanted if not isinstance(answer, KVError) else 0


def _progress() -> Progress:
    """A bar on a terminal; nothing in a pipe or a log."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        disable=not sys.stderr.isatty(),
        console=Console(stderr=True),
        transient=True,
    )
