"""Timings of the failure detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from kvstore.bounds import Bounds, Seconds, check_bounds
from kvstore.config import KIB
from kvstore.errors import ConfigError

_Some = Annotated[int, Bounds(0, 1000)]


@dataclass(frozen=True, slots=True)
class GossipSettings:
    """Times in seconds; the defaults suit one machine or a LAN. Raises ConfigError for what cannot work."""

    TABLE: ClassVar[str] = "gossip"

    probe_interval: Seconds = 0.5
    """From probe to probe, and how long one probe may take in all; more than `probe-timeout`."""
    probe_timeout: Seconds = 0.25
    """How long a ping may stay unanswered before others are asked to try."""
    indirect_probes: _Some = 3
    """How many others are asked."""
    suspicion_min: Seconds = 1.5
    """How long a suspect has to refute, times log10 of the number of nodes."""
    suspicion_max_factor: Annotated[float, Bounds(1, 1000)] = 4.0
    """How much longer it has while nobody confirms the suspicion."""
    confirmations: _Some = 2
    """How many others must confirm it for the shortest time."""
    dead_interval: Seconds = 1.0
    """From ping to ping of a dead member, for ever; longer where more than 8 are dead."""
    push_pull_interval: Seconds = 10.0
    """From one exchange of what is known of the members, with one of them, to the next."""
    awareness_max: _Some = 4
    """Most that bad local health adds to the factor 1 on probe times."""
    retransmit_factor: Annotated[int, Bounds(1, 1000)] = 4
    """An update is sent this many times the decimal logarithm of the number of nodes."""
    update_bytes: Annotated[int, Bounds(1, 64 * KIB)] = 2 * KIB
    """Most bytes of queued updates that ride on one message."""

    def __post_init__(self) -> None:
        check_bounds(self.TABLE, self)
        if self.probe_interval <= self.probe_timeout:
            raise ConfigError(
                f"gossip: probe-interval={self.probe_interval} must exceed probe-timeout={self.probe_timeout}"
            )
