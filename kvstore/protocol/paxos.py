"""What the members of an epoch say to each other to decide on the next: one instance of Paxos for each epoch.

Lamport, "Paxos Made Simple", 2001, section 2. The messages say which epoch is decided on.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import msgspec

from kvstore.protocol.fields import BallotRound, Epoch, NodeId, StateField
from kvstore.protocol.row import peer_message


class Ballot(NamedTuple):
    """The number of a proposal: unique, as a node counts its rounds on beyond all that it has promised."""

    round: BallotRound
    node: NodeId


NO_BALLOT = Ballot(0, "")
MAX_ROUND = 2**48 - 1
NEVER_AGAIN = Ballot(MAX_ROUND + 1, "")
"""What an acceptor promises that lost its memory: nobody's ballot reaches it."""


class Vote(msgspec.Struct, frozen=True):
    """A value that an acceptor has accepted, and in which ballot."""

    ballot: Ballot
    value: StateField


@peer_message("prepares")
class Prepare(msgspec.Struct, frozen=True):
    """Asks for the promise to accept nothing of a lower ballot."""

    epoch: Epoch
    ballot: Ballot


@peer_message("promises")
class Promise(msgspec.Struct, frozen=True):
    """Yes; `vote` is what the sender has accepted before."""

    epoch: Epoch
    ballot: Ballot
    vote: Vote | None


@peer_message("accepts")
class Accept(msgspec.Struct, frozen=True):
    """Accept this value, of which a majority has promised."""

    epoch: Epoch
    ballot: Ballot
    value: StateField


@peer_message("accepted")
class Accepted(msgspec.Struct, frozen=True):
    """The sender has it on its disk."""

    epoch: Epoch
    ballot: Ballot


@peer_message("outbids")
class Outbid(msgspec.Struct, frozen=True):
    """The sender does not do it: it has promised another ballot, and `ballot` is lower or too far beyond."""

    epoch: Epoch
    ballot: Ballot
    promised: Ballot


@peer_message("other_epochs")
class OtherEpoch(msgspec.Struct, frozen=True):
    """The sender takes no part in this instance: it is at the epoch `at`. Who is behind learns the state."""

    epoch: Epoch
    at: Epoch


Question: TypeAlias = Prepare | Accept
Answer: TypeAlias = Promise | Accepted | Outbid | OtherEpoch
PaxosMessage: TypeAlias = Question | Answer
