"""What failure detectors send to each other. `updates` is gossip that rides along."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.gossip.member import Update


@dataclass(frozen=True, slots=True)
class Ping:
    """Answer with an Ack of this sequence number, if you are `target`."""

    sequence: int
    target: str
    updates: tuple[Update, ...]


@dataclass(frozen=True, slots=True)
class PingRequest:
    """Ping `target` for me (indirect probe) and answer with an Ack, or a Nack if it stays silent."""

    sequence: int
    target: str
    updates: tuple[Update, ...]


@dataclass(frozen=True, slots=True)
class Ack:
    """The target of the Ping or PingRequest with this sequence number has answered."""

    sequence: int
    updates: tuple[Update, ...]


@dataclass(frozen=True, slots=True)
class Nack:
    """The target was asked and is silent, but this helper is well (Lifeguard section IV-A)."""

    sequence: int
    updates: tuple[Update, ...]


@dataclass(frozen=True, slots=True)
class PushPull:
    """The sender's whole table; with `reply` it wants the receiver's in return."""

    updates: tuple[Update, ...]
    reply: bool


GossipMessage = Ping | PingRequest | Ack | Nack | PushPull
