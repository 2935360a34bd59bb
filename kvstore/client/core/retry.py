"""What is tried again, and when: only what cannot be applied twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from kvstore.errors import KVError, Outcome, Overloaded, StaleRead, StaleRing
from kvstore.protocol.client import ClientRequest

ATTEMPTS = 3
"""Times that one request is sent at most, as far as its timeout allows, unless the client is told otherwise.
A stale read has no such limit, nor has what was refused because of load, which is sent again at the pace that
the nodes ask for, or because its replicas are changing. With one attempt nothing is sent again."""

Uniform: TypeAlias = Callable[[float, float], float]
"""A random number between two, as `random.Random.uniform`."""

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0
_FIRST_RECONNECT = 0.05
_DOUBLINGS = 10
"""Beyond so many a pause is at its longest anyway; and 2 to the power of some thousand is no float."""


def may_retry(request: ClientRequest, error: KVError, attempt: int, attempts: int = ATTEMPTS) -> bool:
    """Whether repeating is safe and has a chance: reads, and writes that were certainly not applied.

    `attempt` (from 1) is the one that has failed, of so many `attempts` that there may be.
    """
    if attempt >= attempts and (attempts == 1 or not isinstance(error, StaleRead | Overloaded | StaleRing)):
        return False
    return error.retryable and (not request.writes or error.outcome is Outcome.NOT_APPLIED)


def pause(attempt: int, error: KVError, uniform: Uniform) -> float:
    """Seconds to wait after attempt `attempt` (from 1): doubling, jittered, on top of what the node asks.

    That is jittered as well: all that were refused together must not come back together.
    """
    longest = _grown(_FIRST_PAUSE, attempt)
    asked = error.retry_after * uniform(1.0, 1.5) if isinstance(error, Overloaded) else 0.0
    return asked + uniform(0.5, 1.0) * longest


def reconnect_pause(failures: int, uniform: Uniform) -> float:
    """Seconds before the next handshake after so many connections in a row that were none (1: the first)."""
    return uniform(0.5, 1.0) * _grown(_FIRST_RECONNECT, failures - 1)


def _grown(first: float, doublings: int) -> float:
    return min(first * float(2 ** min(doublings, _DOUBLINGS)), _LONGEST_PAUSE)
