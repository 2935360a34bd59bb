"""Making new versions: what a client has seen, a dot that nobody used, the time, and what is replaced."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kvstore.config import Conflict, Limits
from kvstore.errors import InvalidRequest, TooManySiblings, VersionTooLarge
from kvstore.hlc import HybridClock
from kvstore.quorum.actors import Actors
from kvstore.quorum.context_keys import ContextKeys
from kvstore.quorum.ownership import Ownership
from kvstore.quorum.request import Request
from kvstore.versions import (
    EMPTY,
    NOTHING_SEEN,
    Dot,
    DottedContext,
    EncodedVersion,
    InternalKey,
    Sibling,
    SignedContext,
    Version,
    decode_version,
    encode_version,
    join,
    unseen,
    wins,
    write,
)


class Written(msgspec.Struct, frozen=True, gc=False):
    """What a write puts in place of what its writer has seen: a value, or None, a tombstone. See Sibling."""

    value: bytes | None
    expiry: int = 0
    content_type: str = ""


class Minted(msgspec.Struct, frozen=True, gc=False):
    """A new version, and the dot of what was written.

    `overwritten`: in an lww bucket, how many values that its writer had not seen.
    """

    version: Version
    dot: Dot
    encoded: EncodedVersion
    overwritten: int


class Mint:
    """One node's: it has the actors and the hybrid clock."""

    def __init__(
        self,
        actors: Actors,
        clock: HybridClock,
        context_keys: ContextKeys,
        ownership: Ownership,
        limits: Limits,
    ) -> None:
        self._actors = actors
        self._clock = clock
        self._context_keys = context_keys
        self._ownership = ownership
        self._limits = limits

    def seen(self, context: SignedContext, key: InternalKey) -> DottedContext:
        """What a client's context says that it has seen; raises InvalidRequest, UnverifiedContext.

        It is signed, so this cluster has given it out. But a counter that this node has yet to reach was
        given out by nobody, whatever became of the keys: it would cover what is written later.
        """
        if not context:
            return NOTHING_SEEN
        seen = self._context_keys.verify(context, key)
        if not all(map(self._actors.can_have_minted, (*seen.context, *seen.dots))):
            raise InvalidRequest("context", "names writes that were never made")
        return seen

    def mint(self, request: Request, stored: EncodedVersion, seen: DottedContext, written: Written) -> Minted:
        """The version that has `written` in place of what of the `stored` one was `seen`.

        Where that is more than a key may have, what no reader sees any more gives way: values that have
        expired, and tombstones. Raises TooManySiblings, VersionTooLarge if it is too much even then.
        """
        if not stored and seen is NOTHING_SEEN:  # as often as not
            return self._within_limits(EMPTY, 0, seen, self._sibling(request, EMPTY, seen, written), 0)
        current = decode_version(stored) if stored else EMPTY
        overwritten = 0
        if request.bucket.conflict is Conflict.LWW:
            unseen = [s for s in current.visible(request.now.wall) if not seen.covers(s.dot)]
            overwritten = len(unseen)
            seen = DottedContext(join(seen.context, current.context))
        if len(current.siblings) >= self._limits.siblings:
            current = self._with_room(current, seen, request.now.wall)
        sibling = self._sibling(request, current, seen, written)
        try:
            return self._within_limits(current, len(stored), seen, sibling, overwritten)
        except VersionTooLarge:
            visible = current.visible(request.now.wall)
            if len(visible) == len(current.siblings):
                raise
            # the context still covers those left out, so they come back from no replica
            current = Version(current.context, visible)
            return self._within_limits(current, len(stored), seen, sibling, overwritten)

    def _with_room(self, current: Version, seen: DottedContext, wall: int) -> Version:
        """What a write may be beside, of a key that has as many siblings as it may; raises TooManySiblings.

        Nothing is made for a write that is refused: whoever sends many of them costs little each.
        """
        for version in (current, Version(current.context, current.visible(wall))):
            before = len(version.siblings)
            replaces = len(unseen(version.siblings, seen.context, seen.dots)) < before
            if replaces or before < self._limits.siblings:
                return version
        raise TooManySiblings(before, self._limits.siblings)

    def _sibling(self, request: Request, current: Version, seen: DottedContext, written: Written) -> Sibling:
        seen_time = max(s.time for s in current.siblings) if current.siblings else 0
        time = self._clock.tick(request.now.wall, seen_time)
        dot = self._actors.mint(request.partition, join(seen.context, current.context))
        sibling = Sibling(dot, written.value, time, written.expiry, written.content_type)
        if request.bucket.conflict is Conflict.LWW and not wins(sibling, current.siblings):
            raise InvalidRequest("key", "holds a value of the last time there is: this write would be lost")
        return sibling

    def _within_limits(
        self, current: Version, size: int, seen: DottedContext, sibling: Sibling, overwritten: int
    ) -> Minted:
        """What a write makes of `current`, stored in `size` bytes; one that shrinks it is never refused.

        Raises VersionTooLarge.
        """
        version = write(current, seen.context, sibling, seen.dots)
        encoded, most = encode_version(version), self._limits.version
        if len(encoded) > most and len(encoded) > size:
            raise VersionTooLarge(len(encoded), most)
        return Minted(version, sibling.dot, encoded, overwritten)

    def can_have_minted(self, dots: Iterable[Dot]) -> bool:
        """False if one of them, which another node believes in, is of this node and yet to be made.

        Then it never will be: this node takes new actors, whose dots nobody claims to have seen.
        """
        for dot in dots:
            if not self._actors.can_have_minted(dot):
                self._actors.renew_all()
                return False
        return True

    def on_state(self, changed: Iterable[int]) -> None:
        """The replicas of these partitions have changed: if this node has gained one, it may lack dots."""
        for partition in changed:
            self._actors.renew(partition)

    # dots that may be forgotten (kvstore.quorum.actors)

    def hint_discarded(self, key: InternalKey) -> None:
        """A hint was deleted: if its key is only known here by hints, dots may be forgotten now."""
        if not self._ownership.are_here(key):
            self._actors.renew(self._ownership.partition(key))

    def renew_actors(self) -> None:
        """Dots that this node has minted may be forgotten here."""
        self._actors.renew_all()

    def reaped(self, version: EncodedVersion, wall: int) -> None:
        """A version is forgotten here: in an lww bucket a later write must not lose to it elsewhere."""
        times = [sibling.time for sibling in decode_version(version).siblings]
        self._clock.observe(wall, max(times, default=0))
