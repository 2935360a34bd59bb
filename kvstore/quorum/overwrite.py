"""A write over what its writer has seen, its own earlier writes among that.

These are named one by one where others have written beside them: kvstore.versions.DottedContext. Whoever
replaces one must know it, or a replica that has it would bring it back. So a coordinator that lacks one reads
R replicas first, which makes it hold what they hold. What it still lacks then, or when too few replicas are
alive for that, is not replaced: it stays a sibling, and the context that goes back names it again.
"""

from __future__ import annotations

from functools import partial

from msgspec.structs import replace

from kvstore.protocol.client import Explain
from kvstore.protocol.instant import Instant
from kvstore.quorum.mint import Mint, Written
from kvstore.quorum.operation import Respond
from kvstore.quorum.read import Reads
from kvstore.quorum.request import ReadHere, Request
from kvstore.quorum.votes import NOBODY, Outcome, count
from kvstore.quorum.write import Writes
from kvstore.versions import DottedContext, EncodedVersion, SignedContext, covers, decode_version


class Overwrites:
    """Those of one node."""

    def __init__(self, reads: Reads, writes: Writes, read_here: ReadHere, mint: Mint) -> None:
        self._reads = reads
        self._writes = writes
        self._read_here = read_here
        self._mint = mint

    def write(self, request: Request, context: SignedContext, written: Written, respond: Respond) -> None:
        """Begin one; raises KVError when nothing was done."""
        seen = self._mint.seen(context, request.key)
        if seen.dots:
            local = self._read_here(request.placement, request.key)
            if not _knows(local, seen) and _can_read(request):
                reading = replace(request, r=request.bucket.r)
                self._reads.read(reading, local, respond, partial(self._write_then, seen, written))
                return
        self._writes.write(request, seen, written, respond)

    def _write_then(
        self,
        seen: DottedContext,
        written: Written,
        request: Request,
        _result: EncodedVersion,
        _explain: Explain | None,
        respond: Respond,
        _now: Instant,
    ) -> None:
        self._writes.write(request, seen, written, respond)


def _knows(stored: EncodedVersion, seen: DottedContext) -> bool:
    context = decode_version(stored).context if stored else ()
    return all(covers(context, dot) for dot in seen.dots)


def _can_read(request: Request) -> bool:
    quorum = request.placement.read_quorum(request.bucket.r, request.sloppy)
    return count((quorum,), NOBODY, request.placement.dead) is not Outcome.LOST
