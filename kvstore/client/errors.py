"""Errors that arise in the client itself; those of the cluster are in kvstore.errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvstore.client.results import Key, Result, Stored
from kvstore.errors import KVError, Outcome


class ClientClosed(KVError):
    """The client was closed, or was made in the process that this one was forked from."""


class WrongEnvironment(KVError):
    """The client cannot work here, and the message says what would: docs/client-environments.md.

    On another event loop than the one it was connected on, or where half of what it needs is patched.
    """


class PartialFailure(KVError):
    """Some requests of a `get_many` or `put_many` failed; all were tried.

    `succeeded` maps the other keys to their results, `failed` each key to its own error, which
    alone says what became of it. The whole is never retryable: what succeeded must not be repeated.
    """

    def __init__(self, succeeded: Mapping[Any, Result | Stored], failed: Mapping[Any, KVError]) -> None:
        key, error = next(iter(failed.items()))
        total = len(succeeded) + len(failed)
        super().__init__(f"{len(failed)} of {total} requests failed, the first for key {key!r}: {error}")
        self.succeeded: dict[Key, Result | Stored] = dict(succeeded)
        self.failed: dict[Key, KVError] = dict(failed)
        unknown = any(each.outcome is Outcome.UNKNOWN for each in failed.values())
        self.outcome = Outcome.UNKNOWN if unknown else Outcome.NOT_APPLIED
