"""A client's put: a write of a value, over what its context has seen."""

from __future__ import annotations

from kvstore.config import Limits
from kvstore.protocol.client import Put
from kvstore.quorum.mint import Mint, Written
from kvstore.quorum.operation import Respond
from kvstore.quorum.request import Operations, Request
from kvstore.quorum.ttl import expiry
from kvstore.quorum.write import Writes


class Puts:
    """The puts of one node."""

    def __init__(self, writes: Writes, mint: Mint, limits: Limits) -> None:
        self._writes = writes
        self._mint = mint
        self._limits = limits

    @property
    def operations(self) -> Operations:
        """What is begun here."""
        return {Put: self.put}

    def put(self, request: Request, call: Put, respond: Respond) -> None:
        """Begin one; raises KVError when nothing was done."""
        self._limits.check_value(call.value)
        self._limits.check_content_type(call.content_type)
        seen = self._mint.seen(call.context, request.key)
        expires = expiry(call.ttl or request.bucket.ttl, request.now.wall)
        written = Written(call.value, expires, call.content_type)
        self._writes.write(request, seen, written, respond, request.now)
