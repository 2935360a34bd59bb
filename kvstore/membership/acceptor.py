"""The acceptor: what a member has promised and accepted, as a record that is durable before it answers."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from kvstore.membership.follow import check_next
from kvstore.protocol.cluster_state import ClusterState
from kvstore.protocol.paxos import (
    NEVER_AGAIN,
    NO_BALLOT,
    Accept,
    Accepted,
    Answer,
    Ballot,
    OtherEpoch,
    Outbid,
    Prepare,
    Promise,
    Question,
    Vote,
)


class Record(msgspec.Struct, frozen=True):
    """What an acceptor must never forget of the instance that decides on `epoch`."""

    epoch: int = 0
    promised: Ballot = NO_BALLOT
    vote: Vote | None = None


MAX_LEAP = 2**20
"""So far beyond its promise an acceptor goes with one ballot: one message with a wrong ballot cannot use up
all rounds, after which nothing could be decided on. Nobody comes so far by counting rounds."""

NOTHING = Record()
"""Of a member that has answered nobody yet."""


class Reply(NamedTuple):
    """What to answer, when `record` is on the disk; it is the one before if there is nothing new."""

    record: Record
    answer: Answer


def after_loss(state: ClusterState) -> Record:
    """The record of a member that has lost its own, and learnt the newest state from a majority of all.

    In the instance after that one it may have voted, so it does not vote in it; nor in any before it.
    """
    return Record(state.epoch + 1, NEVER_AGAIN)


def answer(me: str, state: ClusterState, record: Record, question: Question) -> Reply:
    """The answer of a member at `state`; raises InvalidRequest for a value that cannot be the next state.

    It answers for the epoch after its own alone: of an earlier one it may have forgotten what it said, and
    for a later one it may be no member. Nor for one before that of its record: then its state is an old one.
    """
    epoch, ballot = question.epoch, question.ballot
    if epoch != state.epoch + 1 or record.epoch > epoch or state.member(me) is None:
        return Reply(record, OtherEpoch(epoch, state.epoch))
    current = record if record.epoch == epoch else Record(epoch)
    if ballot.round > current.promised.round + MAX_LEAP:
        return Reply(record, Outbid(epoch, ballot, current.promised))
    if isinstance(question, Prepare):
        if ballot <= current.promised:
            return Reply(record, Outbid(epoch, ballot, current.promised))
        promised = msgspec.structs.replace(current, promised=ballot)
        return Reply(promised, Promise(epoch, ballot, current.vote))
    return _accept(state, record, current, question)


def _accept(state: ClusterState, record: Record, current: Record, question: Accept) -> Reply:
    epoch, ballot = question.epoch, question.ballot
    if ballot < current.promised:
        return Reply(record, Outbid(epoch, ballot, current.promised))
    check_next(state, question.value)
    return Reply(Record(epoch, ballot, Vote(ballot, question.value)), Accepted(epoch, ballot))
