"""Versions: dots, causal contexts, siblings, and how two versions reconcile.

A stored version is a causal context (actor -> counter) and siblings, each with the dot of the
write that made it. This is a dotted version vector set (Preguica et al., "Dotted Version Vectors",
2010; Almeida et al., "Scalable and Accurate Causality Tracking", 2014). Everything is immutable
and in one order, so equal versions have equal bytes on every node: digests depend on it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

import google_crc32c
import mmh3
import msgspec

from kvstore.errors import Corruption, InvalidRequest

FORMAT = b"\x01"
"""First byte of every encoded version and context."""


class Dot(NamedTuple):
    """The identity of one write: the actor that coordinated it and that actor's counter."""

    actor: str
    counter: int


CausalContext = tuple[Dot, ...]
"""For each actor the highest counter seen, in order of actors: every dot up to it is covered."""


class Sibling(msgspec.Struct, frozen=True, array_like=True):
    """One of the concurrent values of a key.

    `value` is None for a tombstone. `time` is a hybrid logical time (kvstore.hlc), `expiry` wall
    time in milliseconds since 1970, 0 for never.
    """

    dot: Dot
    value: bytes | None
    time: int = 0
    expiry: int = 0
    content_type: str = ""

    def visible(self, wall: int) -> bool:
        """Whether a reader may see it at wall time `wall` (milliseconds)."""
        return self.value is not None and not 0 < self.expiry <= wall


class Version(msgspec.Struct, frozen=True, array_like=True):
    """What is known of one key: the causal context and the siblings, both in order of their dots."""

    context: CausalContext = ()
    siblings: tuple[Sibling, ...] = ()

    def visible(self, wall: int) -> tuple[Sibling, ...]:
        """The siblings a reader sees: no tombstones, nothing expired at `wall` (milliseconds)."""
        siblings = self.siblings
        if len(siblings) == 1:  # nearly always
            return siblings if siblings[0].visible(wall) else ()
        return tuple(sibling for sibling in siblings if sibling.visible(wall))


EMPTY = Version()
"""The version of a key that was never written."""


def covers(context: CausalContext, dot: Dot) -> bool:
    """Whether the write `dot` is in the history that `context` describes."""
    actor, counter = dot
    return any(known == actor and counter <= highest for known, highest in context)


def join(a: CausalContext, b: CausalContext) -> CausalContext:
    """The least context that covers all that `a` and `b` cover."""
    if a == b or not b:
        return a
    if not a:
        return b
    highest = dict(a)
    for actor, counter in b:
        if highest.get(actor, 0) < counter:
            highest[actor] = counter
    return tuple(Dot(actor, highest[actor]) for actor in sorted(highest))


def write(current: Version, seen: CausalContext, sibling: Sibling) -> Version:
    """The version after a client wrote `sibling`, having seen `seen`.

    Only siblings that the client saw are replaced. `sibling.dot` must be new, and the caller must
    hold every earlier dot of that actor on this key in `current` (DESIGN section 5).
    """
    if current is EMPTY and not seen:
        return Version((sibling.dot,), (sibling,))
    kept = [other for other in current.siblings if not covers(seen, other.dot)]
    kept.append(sibling)
    return Version(join(join(current.context, seen), (sibling.dot,)), _ordered(kept))


def reconcile(a: Version, b: Version) -> Version:
    """The version that knows what `a` and `b` know: commutative, associative, idempotent.

    A sibling lives unless the other side's context covers its dot and the other side lacks it.
    """
    if a == b:
        return a
    in_a = {sibling.dot for sibling in a.siblings}
    in_b = {sibling.dot for sibling in b.siblings}
    kept = [s for s in a.siblings if s.dot in in_b or not covers(b.context, s.dot)]
    kept += [s for s in b.siblings if s.dot not in in_a and not covers(a.context, s.dot)]
    return Version(join(a.context, b.context), _ordered(kept))


def reconcile_lww(a: Version, b: Version) -> Version:
    """The rule of `lww` buckets: of all siblings of both only the one written last by its time.

    A plain register: what a context covers does not count. Were covered siblings dropped first, a write
    whose clock was behind that of what it saw could leave nothing at all, depending on the order.
    """
    if a == b:
        return a
    latest = max((*a.siblings, *b.siblings), key=lambda s: (s.time, s.dot))
    return Version(join(a.context, b.context), (latest,))


def discarded(a: Version, b: Version, result: Version) -> int:
    """How many values `reconcile_lww` has dropped although the write that it kept had not seen them."""
    kept = result.siblings[0].dot
    winner = a if any(sibling.dot == kept for sibling in a.siblings) else b
    losers = [s for s in (*a.siblings, *b.siblings) if s.dot != kept and s.value is not None]
    return sum(1 for sibling in losers if not covers(winner.context, sibling.dot))


def _ordered(siblings: Iterable[Sibling]) -> tuple[Sibling, ...]:
    return tuple(sorted(siblings, key=lambda sibling: sibling.dot))


_encoder = msgspec.msgpack.Encoder()
_version_decoder = msgspec.msgpack.Decoder(Version)
_context_decoder = msgspec.msgpack.Decoder(CausalContext)
_TOKEN = struct.Struct(">Q")
_CHECKSUM = struct.Struct(">I")


def encode_version(version: Version) -> bytes:
    """Canonical bytes: equal versions encode equally (docs/versions.md has the layout)."""
    return FORMAT + _encoder.encode(version)


def decode_version(data: bytes) -> Version:
    """Inverse of `encode_version`; raises Corruption."""
    if data[:1] != FORMAT:
        raise Corruption("version", f"unknown format byte {data[:1]!r}")
    try:
        return _version_decoder.decode(memoryview(data)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corruption("version", str(error)) from error


def digest(encoded: bytes) -> bytes:
    """16 bytes that stand for an encoded version when replicas compare what they hold."""
    return mmh3.hash_bytes(encoded)


def encode_context(context: CausalContext, token: int) -> bytes:
    """The opaque context a client gets with a read and passes back with its write.

    `token` is the key's: the checksum covers it, so a context cannot be used for another key,
    where it would claim to have seen what nobody saw.
    """
    payload = _encoder.encode(context)
    return FORMAT + _checksum(payload, token) + payload


def decode_context(data: bytes, token: int) -> CausalContext:
    """Inverse of `encode_context`; an empty `data` is an empty context; raises InvalidRequest."""
    if not data:
        return ()
    payload = data[5:]
    if data[:1] != FORMAT or data[1:5] != _checksum(payload, token):
        raise InvalidRequest("context", "is damaged, or is not a context of this key")
    try:
        return _context_decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest("context", f"cannot be read: {error}") from error


def encode_seen(context: CausalContext, token: int) -> bytes:
    """A session's token: what a later read of the key must have seen.

    It may cover siblings that no client was shown, so it is no context to write with, and is refused as one.
    """
    return encode_context(context, _other(token))


def decode_seen(data: bytes, token: int) -> CausalContext:
    """Inverse of `encode_seen`; raises InvalidRequest."""
    return decode_context(data, _other(token))


def _other(token: int) -> int:
    return token ^ 0xFFFF_FFFF_FFFF_FFFF


def _checksum(payload: bytes, token: int) -> bytes:
    return _CHECKSUM.pack(google_crc32c.value(_TOKEN.pack(token) + payload))
