"""How far a node knows its replicas to be equal to those of its peers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AntiEntropyStatus:
    """How many (partition, n) this node shares with a peer, how many of these pairs were never proven equal.

    `oldest` is the age in seconds of the oldest proof (0 without any). `wanted`: of a repair that an operator
    has asked for, how many pairs are not proven since. `waiting_for` are the peers of these.
    """

    pairs: int
    unproven: int
    oldest: float
    wanted: int
    waiting_for: tuple[str, ...]
