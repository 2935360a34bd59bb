"""What the failure detector asks its node to do, in this order."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvstore.protocol.gossip import GossipMessage, Status


@dataclass(frozen=True, slots=True)
class Send:
    """Send to another node, best effort."""

    to: str
    message: GossipMessage


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """This node's belief about another one has changed."""

    node: str
    old: Status
    new: Status
    reason: str = field(default="", compare=False)
    """Why, for people."""


@dataclass(frozen=True, slots=True)
class PersistIncarnation:
    """Keep this number on disk: the next start must begin with a higher one.

    It precedes the messages that announce it.
    """

    incarnation: int


Output = Send | StatusChanged | PersistIncarnation
