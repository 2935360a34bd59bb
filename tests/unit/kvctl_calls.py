"""kvctl called in the test's own process, as its script calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Done(NamedTuple):
    """The exit code of a call, and what it printed."""

    code: int
    out: str
    err: str


Kvctl = Callable[..., Done]
