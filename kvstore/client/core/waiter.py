"""Who waits for the reply to a request, and what a request can end with."""

from __future__ import annotations

from typing import Protocol, TypeAlias

from kvstore.errors import KVError
from kvstore.protocol.client import Success

Answer: TypeAlias = Success | KVError
"""What a node answers, or what became of the call instead."""


class Waiter(Protocol):
    """Who waits for the reply to a request: an asyncio.Future is one."""

    def done(self) -> bool:
        """Whether nobody waits (any more)."""

    def set_result(self, result: Success, /) -> None:
        """The reply. Called once at most, and only while it is not done."""

    def set_exception(self, exception: KVError, /) -> None:
        """The error in place of a reply, likewise."""
