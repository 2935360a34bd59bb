"""What is tried again, and when: only what cannot be applied twice."""

from __future__ import annotations

import random
from collections.abc import Callable

from kvstore.errors import KVError, Outcome, Overloaded
from kvstore.quorum.messages import ClientRequest, Get

ATTEMPTS = 3
"""Times that one request is sent at most, as far as its timeout allows; one that was refused because of load
is sent as often as it allows, at the pace that the nodes ask for."""

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0


def may_retry(request: ClientRequest, error: KVError) -> bool:
    """Whether repeating is safe and has a chance: reads, and writes that were certainly not applied."""
    return error.retryable and (isinstance(request, Get) or error.outcome is Outcome.NOT_APPLIED)


def exhausted(attempt: int, error: KVError) -> bool:
    """Whether a request that has failed with `error` for the `attempt`-th time is given up."""
    return attempt >= ATTEMPTS and not isinstance(error, Overloaded)


def pause(attempt: int, error: KVError, uniform: Callable[[float, float], float] = random.uniform) -> float:
    """Seconds to wait after attempt `attempt` (from 1): doubling, jittered, on top of what the node asks.

    That is jittered as well: all that were refused together must not come back together.
    """
    longest = min(_FIRST_PAUSE * float(2**attempt), _LONGEST_PAUSE)
    asked = error.retry_after * uniform(1.0, 1.5) if isinstance(error, Overloaded) else 0.0
    return asked + uniform(0.5, 1.0) * longest
