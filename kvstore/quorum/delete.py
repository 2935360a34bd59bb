"""A client's delete: a write of a tombstone, over what its context has seen or else a read of R sees."""

from __future__ import annotations

from kvstore.errors import Corruption
from kvstore.protocol.client import Delete, Explain, Failed, Stored
from kvstore.protocol.instant import Instant
from kvstore.quorum.mint import Written
from kvstore.quorum.operation import Respond
from kvstore.quorum.overwrite import Overwrites
from kvstore.quorum.read import Reads
from kvstore.quorum.request import Operations, ReadHere, Request
from kvstore.quorum.write import Writes
from kvstore.versions import NO_CONTEXT, DottedContext, EncodedVersion, decode_version

_TOMBSTONE = Written(None)


class Deletes:
    """The deletes of one node."""

    def __init__(self, reads: Reads, writes: Writes, overwrites: Overwrites, read_here: ReadHere) -> None:
        self._reads = reads
        self._writes = writes
        self._read_here = read_here
        self._overwrites = overwrites

    @property
    def operations(self) -> Operations:
        """What is begun here."""
        return {Delete: self.delete}

    def delete(self, request: Request, call: Delete, respond: Respond) -> None:
        """Begin one; raises KVError when nothing was done."""
        if call.context:
            self._overwrites.write(request, call.context, _TOMBSTONE, respond)
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
            seen = DottedContext(decode_version(result).context)
        except Corruption as error:  # what all R replicas hold
            respond(Failed(error), now)
            return
        self._writes.write(request, seen, _TOMBSTONE, respond)
