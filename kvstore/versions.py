"""Versions: dots, causal contexts, siblings, and how two versions reconcile.

A stored version is a causal context (actor -> counter) and siblings, each with the dot of the
write that made it. This is a dotted version vector set (Preguica et al., "Dotted Version Vectors",
2010; Almeida et al., "Scalable and Accurate Causality Tracking", 2014). Everything is immutable
and in one order, so equal versions have equal bytes on every node: digests depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from itertools import islice
from operator import lt
from typing import Annotated, Any, NamedTuple, NewType, TypeVar, cast

import mmh3
import msgspec
from msgspec import Meta

from kvstore.config import Limits
from kvstore.errors import Corruption
from kvstore.hlc import MAX_TIME
from kvstore.msgpack_heads import array_head, bytes_head

FORMAT = b"\x01"
"""First byte of every encoded version."""

BucketName = NewType("BucketName", str)
"""Of a bucket, as its users call it (kvstore.config.NAME is its form)."""
UserKey = NewType("UserKey", bytes)
"""A key within its bucket, as its users call it."""
SessionToken = NewType("SessionToken", bytes)
"""What a read of a session must have seen (kvstore.contexts.encode_seen); empty: nothing."""
SignedContext = NewType("SignedContext", bytes)
"""A context as clients hold it: opaque, signed (kvstore.contexts); empty: nothing was seen."""
InternalKey = NewType("InternalKey", bytes)
"""A key as the engine has it, in the keyspace of data (kvstore.protocol.internal_key)."""
EncodedVersion = NewType("EncodedVersion", bytes)
"""What `encode_version` has made, or what is to be checked for that; empty: no version."""
Digest = NewType("Digest", bytes)
"""Of an encoded version."""
NO_TOKEN = SessionToken(b"")
NO_CONTEXT = SignedContext(b"")
NO_KEY = InternalKey(b"")
NO_VERSION = EncodedVersion(b"")

MAX_COUNTER = 2**48 - 1
"""Of an actor: 8,000 years at a thousand writes a second. Far below the type's end, as all bounds here, so
that no sum of honest numbers ever reaches it."""
MAX_EXPIRY = 2**53 - 1
"""In milliseconds since 1970; the longest time to live is 136 years."""
_MAX_ACTOR = 128
"""Characters; kvstore.quorum.actors makes names of 82 at most."""


class Dot(NamedTuple):
    """The identity of one write: the actor that coordinated it and that actor's counter."""

    actor: Annotated[str, Meta(min_length=1, max_length=_MAX_ACTOR)]
    counter: Annotated[int, Meta(ge=1, le=MAX_COUNTER)]


CausalContext = tuple[Dot, ...]
"""For each actor the highest counter seen, in order of actors: every dot up to it is covered."""


class DottedContext(NamedTuple):
    """What a writer has seen: all that `context` covers, and single `dots` beside, of its own writes.

    A context alone cannot say "this write, but not those of others before it by the same actor".
    """

    context: CausalContext = ()
    dots: tuple[Dot, ...] = ()

    def covers(self, dot: Dot) -> bool:
        """Whether the write `dot` is among what was seen."""
        return dot in self.dots or covers(self.context, dot)


NOTHING_SEEN = DottedContext()


class Sibling(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One of the concurrent values of a key.

    `value` is None for a tombstone. `time` is a hybrid logical time (kvstore.hlc), `expiry` wall
    time in milliseconds since 1970, 0 for never.
    """

    dot: Dot
    value: bytes | None
    time: Annotated[int, Meta(ge=0, le=MAX_TIME)] = 0
    expiry: Annotated[int, Meta(ge=0, le=MAX_EXPIRY)] = 0
    content_type: Annotated[str, Meta(max_length=Limits.content_type)] = ""

    def visible(self, wall: int) -> bool:
        """Whether a reader may see it at wall time `wall` (milliseconds)."""
        return self.value is not None and not 0 < self.expiry <= wall


class Version(msgspec.Struct, frozen=True, array_like=True, gc=False):
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


def unseen(siblings: Iterable[Sibling], seen: CausalContext, dots: Container[Dot] = ()) -> list[Sibling]:
    """Those that a writer has not seen, neither by its context nor as one of `dots`: its write keeps them."""
    highest = dict(seen)
    return [s for s in siblings if highest.get(s.dot.actor, 0) < s.dot.counter and s.dot not in dots]


def write(current: Version, seen: CausalContext, sibling: Sibling, dots: Container[Dot] = ()) -> Version:
    """The version after a client wrote `sibling`, having seen `seen`.

    Only siblings that the client saw are replaced, those with one of `dots` as well. `sibling.dot` must be
    new, and the caller must hold every earlier dot of that actor on this key in `current` (DESIGN section 5).
    """
    if current is EMPTY and not seen:
        return Version((sibling.dot,), (sibling,))
    kept = unseen(current.siblings, seen, dots)
    kept.append(sibling)
    return Version(join(join(current.context, seen), (sibling.dot,)), _ordered(kept))


def reconcile(a: Version, b: Version) -> Version:
    """The version that knows what `a` and `b` know: commutative, associative, idempotent.

    A sibling lives unless the other side's context covers its dot and the other side lacks it.
    """
    if a == b:
        return a
    in_a = {sibling.dot for sibling in a.siblings}
    in_b = {sibling.dot: sibling for sibling in b.siblings}
    # as dicts, not by `covers`: with many siblings of many actors that would take the product of the two
    seen_by_a, seen_by_b = dict(a.context), dict(b.context)
    kept = []
    for s in a.siblings:
        if other := in_b.get(s.dot):
            kept.append(s if s == other else max(s, other, key=_rank))
        elif seen_by_b.get(s.dot.actor, 0) < s.dot.counter:
            kept.append(s)
    kept += [s for s in b.siblings if s.dot not in in_a and seen_by_a.get(s.dot.actor, 0) < s.dot.counter]
    return Version(join(a.context, b.context), _ordered(kept))


def reconcile_lww(a: Version, b: Version) -> Version:
    """The rule of `lww` buckets: of all siblings of both only the one written last by its time.

    A plain register: what a context covers does not count. Were covered siblings dropped first, a write
    whose clock was behind that of what it saw could leave nothing at all, depending on the order.
    """
    if a == b:
        return a
    latest = sorted((*a.siblings, *b.siblings), key=_lateness)[-1:]
    return Version(join(a.context, b.context), tuple(latest))


def _rank(sibling: Sibling) -> tuple[bool, int, bytes, int, str]:
    """The order of two siblings under one dot: no honest node makes them, and all have to keep the same one.

    A value goes before a tombstone.
    """
    value = sibling.value
    return value is not None, sibling.time, value or b"", sibling.expiry, sibling.content_type


def _lateness(sibling: Sibling) -> tuple[int, Dot, tuple[bool, int, bytes, int, str]]:
    return sibling.time, sibling.dot, _rank(sibling)


def wins(sibling: Sibling, others: Iterable[Sibling]) -> bool:
    """Whether, in an `lww` bucket, a sibling is what is left where it meets these."""
    return all(_lateness(sibling) >= _lateness(other) for other in others)


def discarded(a: Version, b: Version, result: Version) -> int:
    """How many values `reconcile_lww` has dropped although the write that it kept had not seen them."""
    if not result.siblings:
        return 0
    kept = result.siblings[0].dot
    winner = a if any(sibling.dot == kept for sibling in a.siblings) else b
    losers = [s for s in (*a.siblings, *b.siblings) if s.dot != kept and s.value is not None]
    return sum(1 for sibling in losers if not covers(winner.context, sibling.dot))


def _ordered(siblings: Iterable[Sibling]) -> tuple[Sibling, ...]:
    return tuple(sorted(siblings, key=lambda sibling: sibling.dot))


_COPIED = 4096
"""Up to so many bytes a copy takes less time than to read through a memoryview."""
_LARGE = 64 * 1024
"""A version with more bytes of values is put together from pieces, and checked piece by piece."""
_FORMAT_BYTE = FORMAT[0]
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Version)
V = TypeVar("V", Version, "_ViewedVersion")
# casts of functions, once, as EncodedVersion(...) and Digest(...) would be a call for every version
_with_format = cast("Callable[[bytes], EncodedVersion]", FORMAT.__add__)
_hash = cast("Callable[[bytes], Digest]", mmh3.hash_bytes)


class _ViewedSibling(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A Sibling whose value is where it was read."""

    dot: Dot
    value: memoryview | None
    time: Annotated[int, Meta(ge=0, le=MAX_TIME)] = 0
    expiry: Annotated[int, Meta(ge=0, le=MAX_EXPIRY)] = 0
    content_type: Annotated[str, Meta(max_length=Limits.content_type)] = ""


class _ViewedVersion(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A Version that is only looked at."""

    context: CausalContext = ()
    siblings: tuple[_ViewedSibling, ...] = ()


_view_decoder = msgspec.msgpack.Decoder(_ViewedVersion)


def encode_version(version: Version) -> EncodedVersion:
    """Canonical bytes: equal versions encode equally (docs/versions.md has the layout)."""
    siblings = version.siblings
    if len(siblings) == 1:  # nearly always
        large = len(siblings[0].value or b"") > _LARGE
    else:
        large = sum([len(sibling.value or b"") for sibling in siblings]) > _LARGE
    if large:
        return EncodedVersion(b"".join(_pieces(version)))
    return _with_format(_encoder.encode(version))


def _pieces(version: Version | _ViewedVersion) -> Iterator[bytes | memoryview]:
    """Joined, these are its canonical bytes; the values among them are not copied."""
    encode = _encoder.encode
    yield FORMAT + array_head(2) + encode(version.context) + array_head(len(version.siblings))
    for sibling in version.siblings:
        value = sibling.value
        before = array_head(len(Sibling.__struct_fields__)) + encode(sibling.dot)
        yield before + (encode(None) if value is None else bytes_head(len(value)))
        if value is not None:
            yield value
        yield encode(sibling.time) + encode(sibling.expiry) + encode(sibling.content_type)


def decode_version(data: EncodedVersion) -> Version:
    """Inverse of `encode_version`, all numbers within their bounds; raises Corruption."""
    return _decoded(data, _decoder)


def _decoded(data: EncodedVersion, decoder: msgspec.msgpack.Decoder[V]) -> V:
    if not data or data[0] != _FORMAT_BYTE:
        raise Corruption("version", f"unknown format byte {data[:1]!r}")
    try:
        return decoder.decode(data[1:] if len(data) < _COPIED else memoryview(data)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corruption("version", str(error)) from error


def check_version(data: EncodedVersion) -> CausalContext:
    """As `decode_version`, of bytes that another made: they must be canonical as well; raises Corruption.

    Else replicas would hold different bytes for what is equal, or siblings that no reconciling removes.
    Returns the context alone: large values are not copied for this.
    """
    version = _decoded(data, _decoder) if len(data) <= _LARGE else _decoded(data, _view_decoder)
    context, siblings = version.context, version.siblings
    if len(context) == len(siblings) == 1 and context[0] == siblings[0].dot:  # nearly always
        if _is_canonical(version, data):
            return context
        raise Corruption("version", "is not in canonical form")
    if len(context) > 1 and not _ascend([actor for actor, _ in context]):
        raise Corruption("version", "its context is not in order of actors")
    if len(siblings) > 1 and not _ascend([sibling.dot for sibling in siblings]):
        raise Corruption("version", "its siblings are not in order of their dots")
    highest = dict(context)
    for sibling in siblings:
        if highest.get(sibling.dot.actor, 0) < sibling.dot.counter:
            raise Corruption("version", "its context does not cover one of its siblings")
    if not _is_canonical(version, data):
        raise Corruption("version", "is not in canonical form")
    return context


def _is_canonical(version: Version | _ViewedVersion, data: EncodedVersion) -> bool:
    """Whether the version that was read from these bytes is written so."""
    if isinstance(version, Version):
        return encode_version(version) == data
    at = 0
    for piece in _pieces(version):
        # what is before a value says how long it is: where that is equal, the value is the one that was read
        if isinstance(piece, bytes) and data[at : at + len(piece)] != piece:
            return False
        at += len(piece)
    return at == len(data)


def _ascend(items: list[Any]) -> bool:
    return all(map(lt, items, islice(items, 1, None)))


def digest(encoded: EncodedVersion) -> Digest:
    """16 bytes that stand for an encoded version when replicas compare what they hold."""
    return _hash(encoded)
