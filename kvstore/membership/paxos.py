"""What the members of an epoch say to each other to decide on the next: one instance of Paxos for each epoch.

Lamport, "Paxos Made Simple", 2001, section 2. The messages say which epoch is decided on.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import msgspec

from kvstore.protocol.cluster_state import ClusterState


class Ballot(NamedTuple):
    """The number of a proposal: unique, as a node counts its rounds on beyond all that it has promised."""

    round: int
    node: str


NO_BALLOT = Ballot(0, "")
MAX_ROUND = 2**48 - 1
NEVER_AGAIN = Ballot(MAX_ROUND + 1, "")
"""What an acceptor promises that lost its memory: nobody's ballot reaches it."""


class Vote(msgspec.Struct, frozen=True):
    """A value that an acceptor has accepted, and in which ballot."""

    ballot: Ballot
    value: ClusterState


class Prepare(msgspec.Struct, frozen=True):
    """Asks for the promise to accept nothing of a lower ballot."""

    epoch: int
    ballot: Ballot


class Promise(msgspec.Struct, frozen=True):
    """Yes; `vote` is what the sender has accepted before."""

    epoch: int
    ballot: Ballot
    vote: Vote | None


class Accept(msgspec.Struct, frozen=True):
    """Accept this value, of which a majority has promised."""

    epoch: int
    ballot: Ballot
    value: ClusterState


class Accepted(msgspec.Struct, frozen=True):
    """The sender has it on its disk."""

    epoch: int
    ballot: Ballot


class Outbid(msgspec.Struct, frozen=True):
    """The sender has promised a higher ballot than the one asked for."""

    epoch: int
    ballot: Ballot
    promised: Ballot


class OtherEpoch(msgspec.Struct, frozen=True):
    """The sender takes no part in this instance: it is at the epoch `at`. Who is behind learns the state."""

    epoch: int
    at: int


Question: TypeAlias = Prepare | Accept
Answer: TypeAlias = Promise | Accepted | Outbid | OtherEpoch
