"""Where the client draws its jitter from."""

from __future__ import annotations

import random

_random = random.SystemRandom()
"""Not the generator of `random` itself: what a program draws from a seed does not depend on what goes on
behind it, and Hypothesis refuses programs in which it does."""


def uniform(low: float, high: float) -> float:
    """A number between these."""
    return _random.uniform(low, high)
