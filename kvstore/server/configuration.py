"""A node's configuration as others see it: names and texts, so that a difference has a name.

Nodes send it to each other when they connect, and `kvctl status` compares what all of them say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import msgspec

from kvstore.config import BucketSettings
from kvstore.node.settings import NodeSettings
from kvstore.ring import ClusterState

_MOST_BYTES = 6000
"""gRPC lets all metadata of a call have 8 KiB: what is larger is not sent, only its hash."""
_MOST_SHOWN = 5


class Configuration:
    """Of a node with these settings; the rest is in the cluster state that it acts by."""

    def __init__(self, settings: NodeSettings | None = None) -> None:
        self._settings = settings or NodeSettings()

    def texts(self, state: ClusterState) -> dict[str, str]:
        """What all nodes should have alike; of the settings file's tables only what is not the default."""
        settings = self._settings
        found = {
            "cluster-id": state.cluster_id,
            "partitions": str(state.ring.partitions),
            "replicas": str(state.replicas),
            "max-value": str(settings.limits.value),
        }
        for member in state.members:
            labels = f"/{member.labels}" if member.labels else ""
            found[f"member {member.node}"] = f"{member.address}{labels}"
        found |= {f"bucket {bucket.name}": _bucket(bucket) for bucket in state.buckets}
        for table in (settings.quorum, settings.anti_entropy, settings.gossip):
            for field in fields(table):
                value = getattr(table, field.name)
                if value != field.default:
                    found[f"{table.TABLE} {field.name.replace('_', '-')}"] = f"{value:g}"
        return found


DEFAULTS = Configuration()


def encode(mine: Mapping[str, str]) -> bytes:
    """As metadata of a call; empty when it is too much for them."""
    data = msgspec.json.encode(mine)
    return data if len(data) <= _MOST_BYTES else b""


def differences(mine: Mapping[str, str], sent: bytes | str) -> str:
    """In what a node that has `sent` its configuration differs from `mine`; empty: nothing is known."""
    try:
        theirs = msgspec.json.decode(sent, type=dict[str, str])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""  # none was sent
    names = [name for name in sorted({*mine, *theirs}) if mine.get(name) != theirs.get(name)]
    shown = "; ".join(
        f"{name[:80]}: {theirs.get(name, 'not set')[:80]!r} there, {mine.get(name, 'not set')!r} here"
        for name in names[:_MOST_SHOWN]
    )
    return f"{shown} (and {len(names) - _MOST_SHOWN} more)" if len(names) > _MOST_SHOWN else shown


def _bucket(bucket: BucketSettings) -> str:
    return ",".join(f"{setting}={value}" for setting, value in bucket.values.items())
