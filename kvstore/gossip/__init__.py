"""Membership and failure detection: SWIM with Lifeguard, as pure machines (docs/gossip.md)."""

from kvstore.gossip.failure_detector import FailureDetector
from kvstore.gossip.member import MemberRow
from kvstore.gossip.outputs import Output, PersistIncarnation, Send, StatusChanged
from kvstore.gossip.settings import GossipSettings

__all__ = [
    "FailureDetector",
    "GossipSettings",
    "MemberRow",
    "Output",
    "PersistIncarnation",
    "Send",
    "StatusChanged",
]
