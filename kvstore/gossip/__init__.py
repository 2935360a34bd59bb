"""Membership and failure detection: SWIM with Lifeguard, as pure machines (docs/gossip.md)."""

from kvstore.gossip.failure_detector import FailureDetector
from kvstore.gossip.member import MAX_INCARNATION, Member, Status, Update
from kvstore.gossip.messages import GossipMessage
from kvstore.gossip.outputs import Output, PersistIncarnation, Send, StatusChanged
from kvstore.gossip.settings import GossipSettings

__all__ = [
    "MAX_INCARNATION",
    "FailureDetector",
    "GossipMessage",
    "GossipSettings",
    "Member",
    "Output",
    "PersistIncarnation",
    "Send",
    "Status",
    "StatusChanged",
    "Update",
]
