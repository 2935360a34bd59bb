"""What a session has seen, so that its reads never show less: read your writes, and monotonic reads.

The session guarantees of Terry et al., "Session Guarantees for Weakly Consistent Replicated Data" (1994), key
by key, with the causal contexts that the database has anyway. What is remembered is bounded (docs/reads.md).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import msgspec

from kvstore.config import SESSION_SECONDS
from kvstore.contexts import decode_seen, encode_seen, read_context
from kvstore.protocol.client import Delete, Found, Get, Stored, WriteRequest
from kvstore.ring import token
from kvstore.versions import BucketName, CausalContext, UserKey, join

KEYS = 10_000
"""Keys that a session remembers; more, and those are forgotten that it has not used for longest."""
_Place = tuple[BucketName, UserKey]


class _Entry(NamedTuple):
    context: CausalContext
    empty: bool
    used: float


class Seen:
    """What one session has seen, by bucket and key; each key for `seconds` after its last use."""

    def __init__(self, seconds: float = SESSION_SECONDS) -> None:
        self._seconds = seconds
        self._entries: OrderedDict[_Place, _Entry] = OrderedDict()

    def asking(self, request: Get, now: float) -> Get:
        """The same read, which may not show less than this session has seen."""
        place = (request.bucket, request.key)
        entry = self._entries.get(place)
        if entry is None:
            return request
        if now - entry.used > self._seconds:
            del self._entries[place]
            return request
        seen = encode_seen(entry.context, token(*place))
        return msgspec.structs.replace(request, seen=seen, seen_empty=entry.empty)

    def found(self, request: Get, found: Found, now: float) -> None:
        """The session has read this; raises InvalidRequest for a context that is none."""
        place = (request.bucket, request.key)
        if found.context:
            self._remember(place, read_context(found.context).context, not found.siblings, now)
        else:
            self._entries.pop(place, None)

    def stored(self, request: WriteRequest, stored: Stored, now: float) -> None:
        """The session has written this; raises InvalidRequest for a context that is none."""
        place = (request.bucket, request.key)
        if stored.written:
            written = decode_seen(stored.written, token(*place))
        else:
            written = read_context(stored.context).context if stored.context else ()
        if written:
            self._remember(place, written, isinstance(request, Delete) and not stored.siblings, now)

    def _remember(self, place: _Place, context: CausalContext, empty: bool, now: float) -> None:
        entry = self._entries.pop(place, None)
        if entry is not None:
            joined = join(entry.context, context)
            if joined != context:  # of two requests at the same time the answers may come in any order
                context, empty = joined, empty and entry.empty
        self._entries[place] = _Entry(context, empty, now)
        if len(self._entries) > KEYS:
            self._entries.popitem(last=False)
