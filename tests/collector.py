"""The collector of garbage, which a node runs seldom: until then, what waits for it is memory in use."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collector() -> Iterator[None]:
    """Nothing is collected meanwhile, and nothing is left from before."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
