"""The BUCKET of a command, as shells complete it."""

from __future__ import annotations

import click

from kvstore.errors import KVError
from kvstore.kvctl.invocation import Invocation

_PATIENCE = 1.0
"""Seconds that somebody at a prompt may wait."""


def complete_bucket(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The buckets with settings of their own; others no node can list without reading all keys."""
    endpoints = ctx.find_root().params.get("endpoints")
    try:
        with Invocation(endpoints, _PATIENCE, "table").connect() as client:
            names = [bucket.name for bucket in client.ring().buckets]
    except KVError:
        return []  # a prompt is no place for an error: the command itself will tell
    return sorted(name for name in names if name.startswith(incomplete))
