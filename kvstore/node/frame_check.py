"""What another node sends is checked here, a frame at a time, before any of it is acted on.

A frame is good as a whole or refused as a whole: half of it carried out would leave replicas different.
What a message claims must be possible: keys are internal keys with their own token, versions are canonical
and within bounds, hints are for members, and no dot is one that this node itself has yet to make. Peers are
trusted to be honest, not to be free of defects, or of the same version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kvstore.config import Limits
from kvstore.contexts import KEY_BYTES
from kvstore.errors import Corruption, InvalidRequest
from kvstore.node.outbox import PeerMessage
from kvstore.protocol.messages import (
    KeyOffer,
    RangeDifference,
    RangeItems,
    ReadReply,
    ReapCheck,
    ReplicaRead,
    ReplicaWrite,
)
from kvstore.quorum.background.exchange import ITEM_BYTES
from kvstore.ring import ClusterState, check_data_key
from kvstore.versions import Dot, check_version

_DIGEST_BYTES = 16


class FrameCheck:
    """The checks of one node. `can_have_minted` tells whether all of some dots may have been made."""

    def __init__(
        self,
        name: str,
        state: ClusterState,
        limits: Limits,
        can_have_minted: Callable[[Iterable[Dot]], bool],
    ) -> None:
        self._name = name
        self._state = state
        self._limits = limits
        self._can_have_minted = can_have_minted
        self._checks: dict[type, Callable[[Any], None]] = {
            ReplicaWrite: self._replica_write,
            ReplicaRead: self._replica_read,
            ReadReply: self._read_reply,
            RangeItems: self._range_items,
            RangeDifference: self._range_difference,
            ReapCheck: self._reap_check,
            KeyOffer: self._key_offer,
        }
        """Of the other messages everything is possible, or is ignored by who gets it."""

    def check(self, messages: Sequence[PeerMessage]) -> None:
        """Raise InvalidRequest unless all of these may be carried out."""
        checks = self._checks
        for message in messages:
            if check := checks.get(type(message)):
                try:
                    check(message)
                except Corruption as error:
                    raise InvalidRequest("version", error.reason) from error

    def _replica_write(self, message: ReplicaWrite) -> None:
        self._key(message.key)
        self._version(message.version)
        self._hint_target(message.hint_for)

    def _replica_read(self, message: ReplicaRead) -> None:
        self._key(message.key)
        self._hint_target(message.hint_for)
        self._digest(message.digest)

    def _read_reply(self, message: ReadReply) -> None:
        if message.version:
            self._version(message.version)

    def _range_items(self, message: RangeItems) -> None:
        if message.partition >= self._state.ring.partitions:
            raise InvalidRequest("partition", f"is {message.partition}, which there is none of")
        if len(message.items) % ITEM_BYTES:
            raise InvalidRequest("items", "end within one")

    def _range_difference(self, message: RangeDifference) -> None:
        for key, version in message.versions:
            self._key(key)
            self._version(version)

    def _reap_check(self, message: ReapCheck) -> None:
        for key, digest in message.candidates:
            self._key(key)
            self._digest(digest)

    def _key_offer(self, message: KeyOffer) -> None:
        if any(len(key) != KEY_BYTES for key in message.keys):
            raise InvalidRequest("keys", f"must have {KEY_BYTES} bytes each")

    def _key(self, key: bytes) -> None:
        check_data_key(key, self._limits)

    def _version(self, version: bytes) -> None:
        if not self._can_have_minted(check_version(version).context):
            raise InvalidRequest("version", "names writes that this node has yet to make")

    def _digest(self, digest: bytes) -> None:
        if len(digest) != _DIGEST_BYTES:
            raise InvalidRequest("digest", f"has {len(digest)} bytes, must have {_DIGEST_BYTES}")

    def _hint_target(self, node: str) -> None:
        if node and (node == self._name or self._state.member(node) is None):
            raise InvalidRequest("hint_for", f"{node[:80]!r} is no other member of the cluster")
