"""What a session has seen, so that its reads never show less: read your writes, and monotonic reads.

The session guarantees of Terry et al., "Session Guarantees for Weakly Consistent Replicated Data" (1994), key
by key, with the causal contexts that the database has anyway. What is remembered is bounded (docs/reads.md).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from kvstore.contexts import decode_seen, encode_seen, read_context
from kvstore.protocol.messages import Delete, Found, Get, Put, Stored
from kvstore.ring import token
from kvstore.versions import CausalContext, join

KEYS = 10_000
"""Keys that a session remembers; more, and those are forgotten that it has not used for longest."""
SECONDS = 300.0
"""So long after its last use a key is forgotten: below the age at which a tombstone may be reaped, since what
was seen and then deleted by somebody else is known to nobody after that."""

_Place = tuple[str, bytes]


class _Entry(NamedTuple):
    context: CausalContext
    empty: bool
    used: float


class Seen:
    """What one session has seen, by bucket and key."""

    def __init__(self, clock: Callable[[], float], seconds: float = SECONDS) -> None:
        self._clock = clock
        self._seconds = seconds
        self._entries: OrderedDict[_Place, _Entry] = OrderedDict()

    def asking(self, request: Get) -> Get:
        """The same read, which may not show less than this session has seen."""
        place = (request.bucket, request.key)
        entry = self._entries.get(place)
        if entry is None:
            return request
        if self._clock() - entry.used > self._seconds:
            del self._entries[place]
            return request
        seen = encode_seen(entry.context, token(*place))
        return msgspec.structs.replace(request, seen=seen, seen_empty=entry.empty)

    def found(self, request: Get, found: Found) -> None:
        """The session has read this; raises InvalidRequest for a context that is none."""
        place = (request.bucket, request.key)
        if found.context:
            self._remember(place, read_context(found.context), not found.siblings)
        else:
            self._entries.pop(place, None)

    def stored(self, request: Put | Delete, stored: Stored) -> None:
        """The session has written this; raises InvalidRequest for a context that is none."""
        place = (request.bucket, request.key)
        if stored.context:
            written = read_context(stored.context)
        else:
            written = decode_seen(stored.written, token(*place))
        if written:
            self._remember(place, written, isinstance(request, Delete) and not stored.siblings)

    def _remember(self, place: _Place, context: CausalContext, empty: bool) -> None:
        entry = self._entries.pop(place, None)
        if entry is not None:
            joined = join(entry.context, context)
            if joined != context:  # of two requests at the same time the answers may come in any order
                context, empty = joined, empty and entry.empty
        self._entries[place] = _Entry(context, empty, self._clock())
        if len(self._entries) > KEYS:
            self._entries.popitem(last=False)
