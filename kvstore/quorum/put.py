"""A client's put: a write of a value, over what its context has seen."""

from __future__ import annotations

from kvstore.config import Limits
from kvstore.protocol.client import Put
from kvstore.quorum.mint import Written
from kvstore.quorum.operation import Respond
from kvstore.quorum.overwrite import Overwrites
from kvstore.quorum.request import Operations, Request
from kvstore.quorum.ttl import expiry


class Puts:
    """The puts of one node."""

    def __init__(self, overwrites: Overwrites, limits: Limits) -> None:
        self._overwrites = overwrites
        self._limits = limits

    @property
    def operations(self) -> Operations:
        """What is begun here."""
        return {Put: self.put}

    def put(self, request: Request, call: Put, respond: Respond) -> None:
        """Begin one; raises KVError when nothing was done."""
        self._limits.check_value(call.value)
        self._limits.check_content_type(call.content_type)
        expires = expiry(call.ttl or request.bucket.ttl, request.now.wall)
        written = Written(call.value, expires, call.content_type)
        self._overwrites.write(request, call.context, written, respond)
