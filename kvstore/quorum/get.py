"""A client's get: a read of R replicas, and what of the version that they hold is shown."""

from __future__ import annotations

from kvstore.config import MAX_REPLY_BYTES
from kvstore.contexts import decode_seen
from kvstore.errors import Corruption, VersionTooLarge
from kvstore.hlc import wall_time
from kvstore.protocol.client import Explain, Failed, Found, Get, Value
from kvstore.protocol.instant import Instant
from kvstore.quorum.context_keys import ContextKeys
from kvstore.quorum.operation import Respond
from kvstore.quorum.read import Reads
from kvstore.quorum.request import Operations, ReadHere, Request
from kvstore.versions import EMPTY, NO_CONTEXT, EncodedVersion, Version, decode_version


class Gets:
    """The gets of one node."""

    def __init__(self, reads: Reads, read_here: ReadHere, context_keys: ContextKeys) -> None:
        self._reads = reads
        self._read_here = read_here
        self._context_keys = context_keys

    @property
    def operations(self) -> Operations:
        """What is begun here."""
        return {Get: self.get}

    def get(self, request: Request, call: Get, respond: Respond) -> None:
        """Begin one; raises KVError when it cannot be begun."""
        seen = decode_seen(call.seen, request.token) if call.seen else ()
        self._reads.read(request, self._own(request), respond, self._found, seen)

    def _own(self, request: Request) -> EncodedVersion | None:
        """What this node holds of the key; None for what it cannot read.

        That is no answer, least of all "not found": raises Corruption when the others are fewer than R.
        """
        try:
            return self._read_here(request.placement, request.key)
        except Corruption:
            placement = request.placement
            if request.r > len(placement.to_read if request.sloppy else placement.to_read_strictly):
                raise
            return None

    def _found(
        self,
        request: Request,
        result: EncodedVersion,
        explain: Explain | None,
        respond: Respond,
        now: Instant,
    ) -> None:
        try:
            if len(result) > MAX_REPLY_BYTES:
                raise VersionTooLarge(len(result), MAX_REPLY_BYTES)
            version = decode_version(result) if result else EMPTY
        except (Corruption, VersionTooLarge) as error:  # what all R replicas hold, or have together
            respond(Failed(error), now)
            return
        values = shown(version, request.now.wall)
        context = self._context_keys.sign(version.context, request.key) if result else NO_CONTEXT
        respond(Found(values, context, explain), now)


def shown(version: Version, wall: int) -> tuple[Value, ...]:
    """What a client is shown of a version at the time `wall`."""
    return tuple(
        [
            Value(sibling.value or b"", sibling.content_type, wall_time(sibling.time), sibling.expiry)
            for sibling in version.siblings
            if sibling.visible(wall)
        ]
    )
