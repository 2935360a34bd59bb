"""The file IDENTITY (docs/data-directory.md): whose data this is, and with which settings it was stored.

What is stored is found only with the settings it was stored with: another number of partitions looks on other
nodes, another `n` on fewer. So they are kept with the data, and compared at each start.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from kvstore.config import NAME, BucketSettings, Conflict, default_bucket
from kvstore.errors import WrongDataDirectory
from kvstore.ring import ClusterState

_READABLE = (1, 2, 3)
_MOST_BYTES = 16 * 1024 * 1024
"""A larger file is none of ours: it is not read to its end."""
_MOST_SHOWN = 5

# a pattern of msgspec is searched for, and "$" would let a line feed pass
_Name = Annotated[str, msgspec.Meta(pattern=rf"\A(?:{NAME.pattern})\Z")]
_Count = Annotated[int, msgspec.Meta(ge=1, le=65536)]


class Bucket(msgspec.Struct, frozen=True):
    """What of a bucket's settings decides what is stored, and where."""

    n: _Count
    conflict: Conflict


class _Format(msgspec.Struct, frozen=True):
    format: _Count


class _Format1(msgspec.Struct, frozen=True):
    node: _Name
    cluster_id: _Name


class Identity(msgspec.Struct, frozen=True):
    """Node and cluster, and the settings that must never change. `members` are labels by node id.

    `buckets` are those that differ from what nobody configured: `replicas` copies, siblings kept.
    """

    node: _Name
    cluster_id: _Name
    partitions: _Count
    replicas: _Count
    members: dict[_Name, str]
    buckets: dict[_Name, Bucket]

    @classmethod
    def of(cls, node: str, state: ClusterState) -> Identity:
        """Of this node, started with this state."""
        special = {bucket.name: _kept(bucket) for bucket in state.buckets}
        ordinary = _kept(default_bucket("any", state.replicas))
        return cls(
            node,
            state.cluster_id,
            state.ring.partitions,
            state.replicas,
            {member.node: member.labels for member in state.members},
            {name: bucket for name, bucket in special.items() if bucket != ordinary},
        )

    def _settings(self) -> dict[str, str]:
        # each as a text for people, by its name
        members = ",".join(
            f"{node}/{label}" if label else node for node, label in sorted(self.members.items())
        )
        found = {
            "partitions": f"partitions={self.partitions}",
            "replicas": f"replicas={self.replicas}",
            "members": f"members {members!r}",
        }
        for name, bucket in self.buckets.items():
            found[f"bucket {name}"] = f"bucket {name}:n={bucket.n},conflict={bucket.conflict.value}"
        return found

    def _ordinary(self, bucket: str) -> str:
        # the same text of a bucket that is like those that nobody configured
        return f"{bucket}:n={self.replicas},conflict={Conflict.SIBLINGS.value}"


def _kept(bucket: BucketSettings) -> Bucket:
    return Bucket(bucket.n, bucket.conflict)


def difference(stored: Identity, given: Identity) -> str:
    """The settings that must not change and have, as they are stored and as they were given; empty: none."""
    before, now = stored._settings(), given._settings()
    changed = [name for name in before | now if before.get(name) != now.get(name)]
    if not changed:
        return ""
    shown = changed[:_MOST_SHOWN]
    was = ", ".join(before.get(name) or stored._ordinary(name) for name in shown)
    given_now = ", ".join(now.get(name) or given._ordinary(name) for name in shown)
    more = f" (and {len(changed) - len(shown)} more)" if len(changed) > len(shown) else ""
    return f"{was}, not {given_now}{more}"


def encode(identity: Identity) -> bytes:
    """The bytes of the file, in the oldest format that can say it: hosts came with format 3."""
    hosts = any("/" in labels for labels in identity.members.values())
    fields = {"format": 3 if hosts else 2} | msgspec.to_builtins(identity)
    return msgspec.json.format(msgspec.json.encode(fields), indent=1) + b"\n"


def _as_a_file(path: str, flags: int) -> int:
    """Open it; of a pipe that is in its place nobody waits for the other end."""
    return os.open(path, flags | os.O_NONBLOCK)


def read(path: Path) -> tuple[str, str, Identity | None]:
    """Node, cluster, and all that a file says; None for format 1, which has no more.

    Raises WrongDataDirectory when it is damaged or of another format, OSError when it cannot be read.
    """
    with open(path, "rb", opener=_as_a_file) as file:
        data = file.read(_MOST_BYTES + 1)
    version = _decode(path, data, _Format).format
    if version not in _READABLE:
        raise WrongDataDirectory(
            f"{path} is of format {version}, this program knows formats {_READABLE[0]} to {_READABLE[-1]}"
        )
    if version == 1:
        old = _decode(path, data, _Format1)
        return old.node, old.cluster_id, None
    found = _decode(path, data, Identity)
    return found.node, found.cluster_id, found


T = TypeVar("T")


def _decode(path: Path, data: bytes, kind: type[T]) -> T:
    try:
        if len(data) > _MOST_BYTES:
            raise ValueError("is too large")
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise WrongDataDirectory(f"{path} is damaged: whose data this is cannot be told") from None
