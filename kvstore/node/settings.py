"""All settings of one node in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvstore.config import AntiEntropySettings, Limits, QuorumSettings
from kvstore.gossip import GossipSettings


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Settings of the machines that make up a node, and what clients may send it."""

    quorum: QuorumSettings = field(default_factory=QuorumSettings)
    anti_entropy: AntiEntropySettings = field(default_factory=AntiEntropySettings)
    gossip: GossipSettings = field(default_factory=GossipSettings)
    limits: Limits = field(default_factory=Limits)
