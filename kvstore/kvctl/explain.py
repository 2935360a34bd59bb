"""`kvctl explain`: what a choice of N, R, W and quorum promises, and what it survives."""

from __future__ import annotations

import shutil

import click

from kvstore.config import BucketSettings, Conflict, QuorumMode, default_bucket
from kvstore.errors import ConfigError
from kvstore.kvctl.invocation import Invocation
from kvstore.kvctl.output import say

_WIDTH = 100


@click.command()
@click.option("-n", "--n", type=int, default=3, show_default=True, help="Replicas of each key.")
@click.option("-r", "--r", type=int, help="Replicas that a read waits for; by default a majority of n.")
@click.option("-w", "--w", type=int, help="Replicas that a write waits for; by default a majority of n.")
@click.option(
    "--quorum",
    type=click.Choice([mode.value for mode in QuorumMode]),
    default=QuorumMode.STRICT.value,
    show_default=True,
    help="Whether fallbacks count.",
)
@click.option(
    "--conflict",
    type=click.Choice([conflict.value for conflict in Conflict]),
    default=Conflict.SIBLINGS.value,
    show_default=True,
    help="What becomes of concurrent values.",
)
@click.pass_obj
def explain(session: Invocation, n: int, r: int | None, w: int | None, quorum: str, conflict: str) -> None:
    """Say what a bucket with these settings promises, and what it survives. Needs no cluster.

    \b
    Examples:
      kvctl explain --n 3 --r 2 --w 2
      kvctl explain --n 3 --r 1 --w 1 --quorum sloppy
      kvctl -o json explain --n 5
    """
    settings = _checked(n, r, w, QuorumMode(quorum), Conflict(conflict))
    told = sentences(settings)
    if session.json:
        session.show_json(figures(settings) | {"in_words": told})
        return
    say(f"N={n} R={settings.r} W={settings.w} {quorum} {conflict}")
    width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)
    for topic, sentence in told.items():
        say(click.wrap_text(sentence, width, f"{topic + ':':<12}", " " * 12))


def _checked(n: int, r: int | None, w: int | None, quorum: QuorumMode, conflict: Conflict) -> BucketSettings:
    """The settings; raises ConfigError, naming the flag, when they do not fit together."""
    if n < 1:
        raise ConfigError(f"--n {n}: a key needs at least 1 replica")
    usual = default_bucket("explained", n)
    for flag, value in (("--r", r), ("--w", w)):
        if value is not None and not 1 <= value <= n:
            raise ConfigError(f"{flag} {value}: must be between 1 and n={n}")
    return BucketSettings("explained", n, r or usual.r, w or usual.w, quorum, conflict)


def figures(s: BucketSettings) -> dict[str, object]:
    """The same as numbers, for programs. A number is None where it depends on the nodes of the cluster."""
    strict = s.quorum is QuorumMode.STRICT
    overlap = s.r + s.w - s.n
    return {
        "n": s.n,
        "r": s.r,
        "w": s.w,
        "quorum": s.quorum.value,
        "conflict": s.conflict.value,
        "quorums_overlap": overlap > 0,
        "reads_see_acknowledged_writes": strict and overlap > 0,
        "reads_survive_replicas_down": s.n - s.r if strict else None,
        "writes_survive_replicas_down": s.n - s.w if strict else None,
        "writes_survive_disks_lost": s.w - 1,
        "reads_survive_disks_emptied": max(0, overlap - 1) if strict else 0,
        "concurrent_writes_kept": s.conflict is Conflict.SIBLINGS,
    }


def sentences(s: BucketSettings) -> dict[str, str]:
    """What to expect, by topic."""
    return {
        "reads": _reads(s),
        "down": _down(s),
        "disks": _disks(s),
        "emptied": _emptied(s),
        "concurrent": _concurrent(s),
        "sessions": (
            "reads of a session (db.session() of the client) show at least what it has written and read "
            "before, with any R and W, or raise StaleRead."
        ),
    }


def _reads(s: BucketSettings) -> str:
    total = f"R + W = {s.r + s.w}"
    if s.r + s.w <= s.n:
        return (
            f"may be stale and go back in time: {total} is not more than N = {s.n}, so a read may ask only "
            "replicas that a write has not reached yet. Hints, read repair and anti-entropy bring it there."
        )
    if s.quorum is QuorumMode.SLOPPY:
        return (
            f"may be stale while replicas are down, and until hints are delivered: {total} is more than "
            f"N = {s.n}, but fallbacks count, and a read may ask others than the write did."
        )
    replaced = "a later one by the clock" if s.conflict is Conflict.LWW else "what has replaced it"
    return (
        f"see every write that was acknowledged before they began, or {replaced}, and never go back in time: "
        f"{total} is more than N = {s.n}, so every read asks a replica that has it."
    )


def _down(s: BucketSettings) -> str:
    if s.quorum is QuorumMode.SLOPPY:
        return (
            f"reads go on while any {_nodes(s.r)} of the cluster can be reached, writes while any "
            f"{_nodes(s.w)} can, replicas of the key or not; other nodes keep hints for those that are away."
        )
    return (
        f"reads need {s.r} of the {_replicas(s.n)}, so {_may_be_down(s.n - s.r)}; writes need {s.w}, so "
        f"{_may_be_down(s.n - s.w)}. With fewer they are refused (Unavailable), and nothing is changed."
    )


def _disks(s: BucketSettings) -> str:
    sloppy = s.quorum is QuorumMode.SLOPPY
    if s.w == 1:
        where = ", perhaps of a fallback" if sloppy else ""
        unless = "" if s.n == 1 else ", unless others have their copy by then"
        return f"an acknowledged write is on 1 disk{where}, and lost with it{unless}."
    where = ", some perhaps of fallbacks" if sloppy else ""
    unless = "" if s.w == s.n else "; of more, only if others have their copy by then"
    return (
        f"an acknowledged write is on {s.w} disks{where}, so it survives the loss of any {s.w - 1} at "
        f"once{unless}."
    )


def _emptied(s: BucketSettings) -> str:
    spare = s.r + s.w - s.n - 1
    if s.n == 1:
        return "a replica that comes back with an empty disk has lost everything: there is no other copy."
    if s.quorum is QuorumMode.STRICT and spare > 0:
        some = f"{_replicas(spare)} {'comes' if spare == 1 else 'come'}"
        return (
            f"reads still see everything when {some} back with an empty disk; what was there comes back by "
            "anti-entropy (kvctl repair waits for that)."
        )
    return (
        "a replica that comes back with an empty disk may make reads miss what it had, until anti-entropy "
        "has filled it again (kvctl repair waits for that)."
    )


def _concurrent(s: BucketSettings) -> str:
    if s.conflict is Conflict.SIBLINGS:
        return "writes that have not seen each other are all kept, as siblings, until a write has seen them."
    return (
        "of writes that have not seen each other the one with the latest clock stays; the others are lost, "
        "although they were acknowledged, whatever R and W are."
    )


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"


def _may_be_down(count: int) -> str:
    return f"{count or 'none'} may be down"
