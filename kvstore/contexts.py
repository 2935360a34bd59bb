"""What clients hold of versions: contexts to write with, and tokens of what a session has seen.

A context says which writes its holder has seen, and a write with it replaces them: so a wrong one loses what
others wrote. It is therefore signed with a key that only the nodes of the cluster have. A token only makes a
read of its holder ask for more, so a checksum will do for it, and clients make it themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from hashlib import blake2b
from hmac import compare_digest
from typing import cast

import google_crc32c
import msgspec

from kvstore.errors import InvalidRequest, UnverifiedContext
from kvstore.versions import (
    NOTHING_SEEN,
    CausalContext,
    Dot,
    DottedContext,
    InternalKey,
    SessionToken,
    SignedContext,
)

KEY_BYTES = 16
_FORMAT = b"\x02"
_DOTTED = b"\x03"
"""What a context begins with, and one that has dots."""
MOST_DOTS = 16
"""Of one context."""
_ID_BYTES = 4
_MAC_BYTES = 12
_SIGNED_AT = 1 + _ID_BYTES
_PAYLOAD_AT = _SIGNED_AT + _MAC_BYTES
_LENGTH = struct.Struct(">I")

_TOKEN_FORMAT = b"\x01"
_TOKEN = struct.Struct(">Q")
_CHECKSUM_BYTES = 4

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(CausalContext)
_joined = cast("Callable[[Iterable[bytes]], SignedContext]", b"".join)
_dotted_decoder = msgspec.msgpack.Decoder(DottedContext)


class Keyring:
    """The keys of a cluster, by id. Every node signs with the one of the lowest id, and takes all of them.

    So nodes that have made keys at the same time, not knowing of each other, come to use the same one as soon
    as they have exchanged them, and what was given out before stays good.
    """

    __slots__ = ("_keys", "_macs", "_signing")

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self._keys: dict[bytes, bytes] = {}
        self._macs: dict[bytes, blake2b] = {}
        """MACs that have taken a key and nothing else yet: to begin with a copy is cheaper."""
        self._signing = b""
        for key in keys:
            self.add(key)

    def add(self, key: bytes) -> bool:
        """Take a key of KEY_BYTES; whether it is new here."""
        name = key_id(key)
        if name in self._keys:
            return False
        self._keys[name] = key
        self._macs[name] = blake2b(key=key, digest_size=_MAC_BYTES)
        self._signing = min(self._keys)
        return True

    @property
    def keys(self) -> tuple[bytes, ...]:
        """All keys, in order of their ids."""
        return tuple(self._keys[name] for name in sorted(self._keys))

    def sign(self, place: InternalKey, payload: bytes) -> bytes:
        """The id of a key, and the MAC of `payload` at `place` under it. There must be a key."""
        return self._signing + _mac(self._macs[self._signing], place, payload)

    def verify(self, name: bytes, mac: bytes, place: InternalKey, payload: bytes) -> bool:
        """Whether `mac` is that of the key with the id `name`; raises UnverifiedContext without that key."""
        begun = self._macs.get(name)
        if begun is None:
            raise UnverifiedContext
        return compare_digest(mac, _mac(begun, place, payload))


def key_id(key: bytes) -> bytes:
    """What a key is called: it tells nothing of the key."""
    return blake2b(key, digest_size=_ID_BYTES).digest()


def _mac(begun: blake2b, place: InternalKey, payload: bytes) -> bytes:
    mac = begun.copy()
    # the length in front: no other place and payload give the same bytes
    mac.update(_LENGTH.pack(len(place)) + place + payload)
    return mac.digest()


def encode_context(
    context: CausalContext, place: InternalKey, keyring: Keyring, dots: tuple[Dot, ...] = ()
) -> SignedContext:
    """The opaque context that a client gets with a read or a write, and passes back with its next write.

    `place` is the internal key: used for another one, it would claim to have seen what nobody saw. Of more
    than MOST_DOTS `dots` the last ones are kept: the write then leaves the others as siblings.
    """
    if dots:
        payload = _encoder.encode(DottedContext(context, dots[-MOST_DOTS:]))
        return _joined((_DOTTED, keyring.sign(place, _DOTTED + payload), payload))
    payload = _encoder.encode(context)
    return _joined((_FORMAT, keyring.sign(place, payload), payload))


def decode_context(data: SignedContext, place: InternalKey, keyring: Keyring) -> DottedContext:
    """Inverse of `encode_context`; an empty `data` is an empty context.

    Raises InvalidRequest for what was not given out for this key, UnverifiedContext if that cannot be told.
    """
    if not data:
        return NOTHING_SEEN
    context = read_context(data)  # before it is verified: what is no context is refused whatever its key is
    payload = data[_PAYLOAD_AT:]
    signed = _DOTTED + payload if data[:1] == _DOTTED else payload  # or one could pass for the other
    if not keyring.verify(data[1:_SIGNED_AT], data[_SIGNED_AT:_PAYLOAD_AT], place, signed):
        raise InvalidRequest("context", "is damaged, or was not given out by this cluster for this key")
    return context


def read_context(data: bytes) -> DottedContext:
    """What an encoded context says, whoever made it: for clients, who have no key; raises InvalidRequest."""
    form = data[:1]
    if form not in (_FORMAT, _DOTTED) or len(data) <= _PAYLOAD_AT:
        raise InvalidRequest(
            "context", "is damaged, or of a version of kvstore that did not sign: read again"
        )
    if form == _FORMAT:
        return DottedContext(_decoded(data[_PAYLOAD_AT:]))
    try:
        dotted = _dotted_decoder.decode(data[_PAYLOAD_AT:])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _unreadable(error) from error
    return DottedContext(_checked(dotted.context), dotted.dots)


def encode_seen(context: CausalContext, token: int) -> SessionToken:
    """A session's token: what a later read of the key with this `token` must have seen.

    It may cover siblings that no client was shown, so it is no context to write with, and is refused as one.
    """
    payload = _encoder.encode(context)
    return SessionToken(_TOKEN_FORMAT + _checksum(payload, token) + payload)


def decode_seen(data: SessionToken, token: int) -> CausalContext:
    """Inverse of `encode_seen`; an empty `data` is an empty context; raises InvalidRequest."""
    if not data:
        return ()
    checksum, payload = data[1 : 1 + _CHECKSUM_BYTES], data[1 + _CHECKSUM_BYTES :]
    if data[:1] != _TOKEN_FORMAT or checksum != _checksum(payload, token):
        raise InvalidRequest("seen", "is damaged, or is not a token of this key")
    return _decoded(payload)


def _decoded(payload: bytes) -> CausalContext:
    try:
        context = _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _unreadable(error) from error
    return _checked(context)


def _checked(context: CausalContext) -> CausalContext:
    if len(dict(context)) != len(context):
        raise InvalidRequest("context", "names an actor twice")
    return context


def _unreadable(error: Exception) -> InvalidRequest:
    return InvalidRequest("context", f"cannot be read: {error}")


def _checksum(payload: bytes, token: int) -> bytes:
    # of the other half of tokens: what an earlier version gave out to write with is none of these
    summed = _TOKEN.pack(token ^ 0xFFFF_FFFF_FFFF_FFFF) + payload
    return int(google_crc32c.value(summed)).to_bytes(_CHECKSUM_BYTES, "big")
