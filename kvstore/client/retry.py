"""What is tried again, and when: only what cannot be applied twice."""

from __future__ import annotations

import random
from collections.abc import Callable

from kvstore.errors import KVError, Outcome, Overloaded, StaleRead
from kvstore.protocol.messages import ClientRequest, Get

ATTEMPTS = 3
"""Times that one request is sent at most, as far as its timeout allows. A stale read has no such limit, nor
has what was refused because of load: that is sent again at the pace that the nodes ask for."""

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0


def may_retry(request: ClientRequest, error: KVError, attempt: int) -> bool:
    """Whether repeating is safe and has a chance: reads, and writes that were certainly not applied.

    `attempt` (from 1) is the one that has failed.
    """
    if attempt >= ATTEMPTS and not isinstance(error, StaleRead | Overloaded):
        return False
    return error.retryable and (isinstance(request, Get) or error.outcome is Outcome.NOT_APPLIED)


def pause(attempt: int, error: KVError, uniform: Callable[[float, float], float] = random.uniform) -> float:
    """Seconds to wait after attempt `attempt` (from 1): doubling, jittered, on top of what the node asks.

    That is jittered as well: all that were refused together must not come back together.
    """
    longest = min(_FIRST_PAUSE * float(2**attempt), _LONGEST_PAUSE)
    asked = error.retry_after * uniform(1.0, 1.5) if isinstance(error, Overloaded) else 0.0
    return asked + uniform(0.5, 1.0) * longest
