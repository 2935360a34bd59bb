"""What another node sends is checked here, a frame at a time, before any of it is acted on.

A frame is good as a whole or refused as a whole: half of it carried out would leave replicas different.
What a message claims must be possible: keys are internal keys with their own token, versions are canonical
and within bounds, hints are for members, and no dot is one that this node itself has yet to make. Peers are
trusted to be honest, not to be free of defects, or of the same version.

A field is checked by its kind (kvstore.protocol.fields), in whatever message it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from kvstore.config import Limits
from kvstore.contexts import KEY_BYTES
from kvstore.errors import Corruption, InvalidRequest
from kvstore.principal import MOST_CHARACTERS
from kvstore.protocol.derive import function
from kvstore.protocol.fields import Field, Kind, fields_of, is_record
from kvstore.protocol.paxos import NEVER_AGAIN
from kvstore.protocol.table import PEER_TABLE, PeerMessage
from kvstore.quorum.background.merkle_tree import NODES
from kvstore.quorum.background.range_items import ITEM_BYTES
from kvstore.quorum.ownership import Ownership
from kvstore.ring import check_data_key
from kvstore.versions import Dot, EncodedVersion, InternalKey, check_version

_DIGEST_BYTES = 16
_TOKEN_BYTES = 9
"""Of an internal key, before the bucket: the keyspace and the token."""

_BUCKET_BYTES = 64
"""The longest name of a bucket."""

Check = Callable[[Any], None]
"""Raises InvalidRequest or Corruption for a value that is wrong."""

NOT_CHECKED = {
    Kind.NUMBER: "compared, never counted with; an answer to what nobody asked is dropped",
    Kind.EPOCH: "compared, never counted with",
    Kind.NODE: "who does not know a node ignores what is said of it: another epoch may have it",
    Kind.TREE_HASH: "compared, never counted with",
    Kind.ITEM_COUNT: "compared: the hash of a tree tells how it came about",
    Kind.POSITION: "the asker knows how many it has asked for",
    Kind.TIME_LEFT: "any is possible",
    Kind.CLUSTER_STATE: "is one when it is read (kvstore.ring.check); who takes it judges what may follow",
    Kind.INCARNATION: "counts as MAX_INCARNATION at most (kvstore.wire.codec)",
    Kind.BUCKET: "its client learns of it where the request is admitted, as of all that follow",
    Kind.KEY: "see BUCKET",
    Kind.VALUE: "see BUCKET",
    Kind.CONTENT_TYPE: "see BUCKET",
    Kind.CONTEXT: "see BUCKET",
    Kind.SEEN: "see BUCKET",
    Kind.REPLICAS: "see BUCKET",
    Kind.TTL: "see BUCKET",
    Kind.SECONDS: "see BUCKET",
    Kind.TIME: "of a reply: the client's to judge",
    Kind.COUNT: "of a reply: the client's to judge",
}
"""Kinds of which everything is possible, or is judged by who gets it."""


class FrameCheck:
    """The checks of one node. `can_have_minted` tells whether all of some dots may have been made."""

    def __init__(
        self,
        ownership: Ownership,
        limits: Limits,
        can_have_minted: Callable[[Iterable[Dot]], bool],
    ) -> None:
        self._ownership = ownership
        self._limits = limits
        self._can_have_minted = can_have_minted
        self._longest_key = _TOKEN_BYTES + _BUCKET_BYTES + 1 + limits.key + 1
        self.by_kind: dict[Kind, Check] = {
            Kind.INTERNAL_KEY: self._key,
            Kind.KEY_BOUND: self._key_bound,
            Kind.VERSION: self._version,
            Kind.VERSION_OR_NONE: self._version_or_none,
            Kind.DIGEST: self._digest,
            Kind.HINT_TARGET: self._hint_target,
            Kind.PARTITION: self._partition,
            Kind.TREE_N: self._tree_n,
            Kind.TREE_NODE: self._tree_node,
            Kind.LEAVES: self._leaves,
            Kind.ITEMS: self._items,
            Kind.CONTEXT_KEY: self._context_key,
            Kind.PRINCIPAL: self._principal,
            Kind.BALLOT_ROUND: _ballot_round,
        }
        checks = {struct: self._of(struct) for struct in PEER_TABLE}
        self._checks = {struct: check for struct, check in checks.items() if check is not None}

    def check(self, messages: Sequence[PeerMessage]) -> None:
        """Raise InvalidRequest unless all of these may be carried out."""
        checks = self._checks
        for message in messages:
            if check := checks.get(type(message)):
                try:
                    check(message)
                except Corruption as error:
                    raise InvalidRequest("version", error.reason) from error

    def _of(self, record: type) -> Check | None:
        """The check of all fields of a record; None when there is nothing to check."""
        checks = {field.name: check for field in fields_of(record) if (check := self._of_field(field))}
        lines = [f"{name}(s.{name})" for name in checks]
        return function(f"check_{record.__name__}", "s", lines, checks) if checks else None

    def _of_field(self, field: Field) -> Check | None:
        check = self.by_kind.get(field.kind) if field.kind is not None else None
        if len(field.types) == 1 and is_record(field.type):
            check = self._of(field.type)
        if check is None or not (field.many or field.optional):
            return check
        return _each(check) if field.many else _if_there(check)

    def _key(self, key: InternalKey) -> None:
        check_data_key(key, self._limits)

    def _key_bound(self, key: InternalKey) -> None:
        if len(key) > self._longest_key:
            raise InvalidRequest("key", f"a bound of {len(key)} bytes is longer than any key")

    def _version(self, version: EncodedVersion) -> None:
        if not self._can_have_minted(check_version(version)):
            raise InvalidRequest("version", "names writes that this node has yet to make")

    def _version_or_none(self, version: EncodedVersion) -> None:
        if version:
            self._version(version)

    def _digest(self, digest: bytes) -> None:
        if len(digest) != _DIGEST_BYTES:
            raise InvalidRequest("digest", f"has {len(digest)} bytes, must have {_DIGEST_BYTES}")

    def _hint_target(self, node: str) -> None:
        ownership = self._ownership
        if node and (node == ownership.name or ownership.state.member(node) is None):
            raise InvalidRequest("hint_for", f"{node[:80]!r} is no other member of the cluster")

    def _partition(self, partition: int) -> None:
        if partition >= self._ownership.state.ring.partitions:
            raise InvalidRequest("partition", f"is {partition}, which there is none of")

    def _tree_n(self, n: int) -> None:
        members = self._ownership.state.members
        if not 1 <= n <= len(members):
            raise InvalidRequest("n", f"is {n}, of {len(members)} members")

    def _tree_node(self, number: int) -> None:
        if number >= NODES:
            raise InvalidRequest("number", f"is {number}: a tree has {NODES} nodes")

    def _leaves(self, leaves: bytes) -> None:
        if any(first >= second for first, second in pairwise(leaves)):
            raise InvalidRequest("leaves", "are not in order")

    def _items(self, items: bytes) -> None:
        if len(items) % ITEM_BYTES:
            raise InvalidRequest("items", "end within one")

    def _principal(self, name: str) -> None:
        if len(name) > MOST_CHARACTERS:
            raise InvalidRequest("principal", f"has {len(name)} characters, the limit is {MOST_CHARACTERS}")

    def _context_key(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise InvalidRequest("keys", f"must have {KEY_BYTES} bytes each")


def _ballot_round(number: int) -> None:
    if number > NEVER_AGAIN.round:
        raise InvalidRequest("round", f"is {number}, the limit is {NEVER_AGAIN.round}")


def _if_there(check: Check) -> Check:
    """The check of what may be None."""

    def check_it(item: Any) -> None:
        if item is not None:
            check(item)

    return check_it


def _each(check: Check) -> Check:
    """The check of each item of a list; one that is None is not there."""

    def check_each(items: Iterable[Any]) -> None:
        for item in items:
            if item is not None:
                check(item)

    return check_each
