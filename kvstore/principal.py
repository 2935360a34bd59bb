"""On whose behalf a request is carried out. Nodes do not authenticate yet, so it is always `ANYONE`."""

from __future__ import annotations

import msgspec

MOST_CHARACTERS = 255
"""Of a name."""


class Principal(msgspec.Struct, frozen=True, gc=False):
    """Who asks, by name; it travels with each request, also to the node that it is forwarded to."""

    name: str


ANYONE = Principal("anyone")
"""Whoever reaches the port."""
