"""A client's delete: a write of a tombstone, over what its context has seen or else a read of R sees."""

from __future__ import annotations

from kvstore.errors import KVError
from kvstore.instant import Instant
from kvstore.protocol.client import Delete, Explain, Failed, Stored
from kvstore.quorum.mint import Mint, Written
from kvstore.quorum.operation import Respond
from kvstore.quorum.read import Reads
from kvstore.quorum.request import Operations, ReadHere, Request
from kvstore.quorum.write import Writes
from kvstore.versions import NO_CONTEXT, EncodedVersion, decode_version

_TOMBSTONE = Written(None)


class Deletes:
    """The deletes of one node."""

    def __init__(self, reads: Reads, writes: Writes, read_here: ReadHere, mint: Mint) -> None:
        self._reads = reads
        self._writes = writes
        self._read_here = read_here
        self._mint = mint

    @property
    def operations(self) -> Operations:
        """What is begun here."""
        return {Delete: self.delete}

    def delete(self, request: Request, call: Delete, respond: Respond) -> None:
        """Begin one; raises KVError when nothing was done."""
        if call.context:
            seen = self._mint.seen(call.context, request.key)
            self._writes.write(request, seen, _TOMBSTONE, respond, request.now)
        else:
            local = self._read_here(request.placement, request.key)
            self._reads.read(request, local, respond, self._delete_what_was_read)

    def _delete_what_was_read(
        self,
        request: Request,
        result: EncodedVersion,
        explain: Explain | None,
        respond: Respond,
        now: Instant,
    ) -> None:
        if not result:
            respond(Stored(NO_CONTEXT, 0, explain), now)
            return
        try:
            seen = decode_version(result).context
            self._writes.write(request, seen, _TOMBSTONE, respond, now)
        except KVError as error:
            respond(Failed(error), now)
