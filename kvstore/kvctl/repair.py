"""`kvctl repair`: anti-entropy now, for everything, until all replicas are proven equal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from kvstore.errors import KVError, NoNodeAvailable
from kvstore.kvctl.failures import INCOMPLETE
from kvstore.kvctl.invocation import Invocation
from kvstore.kvctl.output import note, tell

if TYPE_CHECKING:
    from kvstore.client.status import AntiEntropyStatus
    from kvstore.client.synchronous import Client

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

    Nodes do this all the time by themselves, at leisure. If nodes are away, what the others hold is compared
    and repaired; the nodes that it waits for are named, and the exit code is 5.

    \b
    Examples:
      kvctl repair
      kvctl -o json repair --wait 60
    """
    with session.connect() as client:
        answers: _Answers = client.repair()
        if all(isinstance(answer, KVError) for answer in answers.values()):
            raise NoNodeAvailable({node: str(answer) for node, answer in answers.items()})
        answers = _follow(client, answers, time.monotonic() + wait)
    told = {node: answer for node, answer in answers.items() if not isinstance(answer, KVError)}
    away = {node: str(answer) for node, answer in answers.items() if isinstance(answer, KVError)}
    pairs = sum(answer.pairs for answer in told.values())
    left = {node: answer.wanted for node, answer in told.items() if answer.wanted}
    if session.json:
        session.show_json({"pairs": pairs, "left": sum(left.values()), "away": sorted(away)})
    elif not left and not away:
        tell(f"all replicas are equal: {pairs:,} proofs")
    for node, reason in away.items():
        note(f"kvctl: {node} is away, so nothing is proven of what it holds: {reason}")
    for node, count in left.items():
        if waiting := set(told[node].waiting_for) - away.keys():
            note(
                f"kvctl: not proven equal after {wait:g} s: {count} of {node}'s, "
                f"which waits for {', '.join(sorted(waiting))}"
            )
    if left or away:
        sys.exit(INCOMPLETE)


def _follow(client: Client, answers: _Answers, deadline: float) -> _Answers:
    """Wait until nothing is left but what nodes that are away must be asked about; the last answers."""
    with _progress() as progress:
        total = sum(_left(answer) for answer in answers.values())
        task = progress.add_task("proven equal", total=total)
        while _goes_on(answers):
            progress.update(task, completed=total - sum(map(_left, answers.values())))
            if time.monotonic() >= deadline:
                break
            time.sleep(_POLL_SECONDS)
            answers = client.repair(start=False)
    return answers


def _goes_on(answers: _Answers) -> bool:
    """Whether some node still has to compare itself with one that answers."""
    return any(
        answer.wanted and any(not isinstance(answers.get(peer), KVError) for peer in answer.waiting_for)
        for answer in answers.values()
        if not isinstance(answer, KVError)
    )


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
