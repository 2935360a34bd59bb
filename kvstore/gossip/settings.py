"""Timings of the failure detector."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.errors import ConfigError


@dataclass(frozen=True, slots=True)
class GossipSettings:
    """Times in seconds; the defaults suit one machine or a LAN. Raises ConfigError for what cannot work."""

    probe_interval: float = 0.5
    """From probe to probe, and how long one probe may take in all."""
    probe_timeout: float = 0.25
    """How long a ping may stay unanswered before others are asked to try."""
    indirect_probes: int = 3
    suspicion_min: float = 1.5
    """How long a suspect has to refute, times log10 of the number of nodes."""
    suspicion_max_factor: float = 4.0
    """How much longer it has while nobody confirms the suspicion."""
    confirmations: int = 2
    """How many others must confirm it for the shortest time."""
    dead_interval: float = 1.0
    """From ping to ping of a dead member, for ever."""
    push_pull_interval: float = 10.0
    awareness_max: int = 4
    """Most that bad local health adds to the factor 1 on probe times."""
    retransmit_factor: int = 4
    """An update is sent this many times the decimal logarithm of the number of nodes."""
    update_bytes: int = 1024
    """Most bytes of queued updates that ride on one message."""

    def __post_init__(self) -> None:
        for name in ("probe_timeout", "suspicion_min", "dead_interval", "push_pull_interval"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"gossip: {name}={getattr(self, name)} must be more than 0")
        if self.probe_interval <= self.probe_timeout:
            raise ConfigError(
                f"gossip: probe_interval={self.probe_interval} must exceed probe_timeout={self.probe_timeout}"
            )
        if self.suspicion_max_factor < 1:
            raise ConfigError(f"gossip: suspicion_max_factor={self.suspicion_max_factor} must be at least 1")
        for name in ("indirect_probes", "confirmations", "awareness_max"):
            if getattr(self, name) < 0:
                raise ConfigError(f"gossip: {name}={getattr(self, name)} must not be negative")
        for name in ("retransmit_factor", "update_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"gossip: {name}={getattr(self, name)} must be at least 1")
