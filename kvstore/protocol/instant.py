"""The time of an input: given to the core, which reads no clock of its own."""

from __future__ import annotations

from typing import NamedTuple


class Instant(NamedTuple):
    """`mono` in seconds, only ever forwards; `wall` in milliseconds since 1970."""

    mono: float
    wall: int
