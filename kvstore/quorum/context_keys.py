"""The keys that this node signs contexts with: made at its first start, kept, and exchanged with the others.

Every node hands out all keys that it has: when a connection opens, with each exchange of membership tables,
and to everyone when one is new. So a context of one node is soon good at all of them. Keys are never
forgotten, as a client may keep a context for years. A node that has not heard from every member since it
started cannot call a context forged: it may be signed with a key that only an absent member has.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from contextlib import suppress

from kvstore.contexts import KEY_BYTES, Keyring, decode_context, encode_context, key_id
from kvstore.errors import InvalidRequest, Overloaded, StorageFull, UnverifiedContext
from kvstore.lsm.reading import ScanAround
from kvstore.quorum.replica import Replica
from kvstore.versions import CausalContext, Dot, DottedContext, InternalKey, SignedContext

CONTEXT_KEYS = b"n/context-key/"
"""Where the engine keeps them, by id; `n` is the keyspace of node-local records."""
_MOST = 1024
"""A cluster has one key for each node that ever started without knowing of another's."""


class ContextKeys:
    """One node's keyring, on its disk."""

    __slots__ = ("_heard", "_keyring", "_others", "_replica", "_sync")

    def __init__(
        self, scan: ScanAround, sync: Callable[[], object], replica: Replica, others: Iterable[str]
    ) -> None:
        """`sync` makes all writes durable, here and now; it raises StorageFull."""
        self._sync = sync
        self._replica = replica
        self._others = frozenset(others)
        self._heard: set[str] = set()
        self._keyring = Keyring(_stored(scan))

    @property
    def keys(self) -> tuple[bytes, ...]:
        """All that this node has."""
        return self._keyring.keys

    def start(self, rng: random.Random) -> None:
        """Make a key if there is none. It is on the disk when this returns, before it signs anything.

        On a full disk it is in memory alone: what it signs is good until all nodes that have it have stopped.
        """
        if not self._keyring.keys:
            self._take([rng.randbytes(KEY_BYTES)])
            with suppress(StorageFull):
                self._sync()

    def on_state(self, others: Iterable[str]) -> None:
        """The members have changed: these are the others."""
        self._others = frozenset(others)

    def offered(self, sender: str, keys: Iterable[bytes]) -> bool:
        """Take the keys that another node has; whether one of them is new here."""
        self._heard.add(sender)
        return self._take(keys)

    def _take(self, keys: Iterable[bytes]) -> bool:
        new = [key for key in keys if len(self._keyring.keys) < _MOST and self._keyring.add(key)]
        if new:
            try:
                self._replica.write([(CONTEXT_KEYS + key_id(key).hex().encode(), key) for key in new])
            except (StorageFull, Overloaded):
                return True  # the others have it, and will hand it out again after a restart
        return bool(new)

    def sign(self, context: CausalContext, place: InternalKey, dots: tuple[Dot, ...] = ()) -> SignedContext:
        """The context for a client: see kvstore.contexts.encode_context."""
        return encode_context(context, place, self._keyring, dots)

    def verify(self, data: SignedContext, place: InternalKey) -> DottedContext:
        """What a client's context says; raises InvalidRequest, UnverifiedContext."""
        try:
            return decode_context(data, place, self._keyring)
        except UnverifiedContext:
            if self._heard >= self._others:  # whoever gave it out would have told of the key
                raise InvalidRequest("context", "was not given out by this cluster") from None
            raise


def _stored(scan: ScanAround) -> list[bytes]:
    end = CONTEXT_KEYS[:-1] + bytes([CONTEXT_KEYS[-1] + 1])
    found = [value for _, value in scan(CONTEXT_KEYS, end)]
    # one that cannot be read comes back from the others
    return [value for value in found if value is not None and len(value) == KEY_BYTES]
