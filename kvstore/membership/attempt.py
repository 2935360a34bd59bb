"""One ballot of a proposer: prepare, then accept. A value, as what it comes to next is."""

from __future__ import annotations

import msgspec

from kvstore.protocol.cluster_state import ClusterState
from kvstore.protocol.paxos import Accept, Accepted, Answer, Ballot, Prepare, Promise, Question, Vote
from kvstore.quorum.votes import Quorum, won


class Attempt(msgspec.Struct, frozen=True):
    """Of a member at `state` that wants `value` to be the next one."""

    state: ClusterState
    value: ClusterState
    ballot: Ballot
    vote: Vote | None = None
    """That of the highest ballot of those who have promised."""
    promised: frozenset[str] = frozenset()
    accepted: frozenset[str] = frozenset()

    @property
    def _majority(self) -> tuple[Quorum]:
        members = frozenset(member.node for member in self.state.members)
        return (Quorum(members, len(members) // 2 + 1),)

    @property
    def question(self) -> Question:
        """What to ask all members of this epoch now."""
        epoch = self.state.epoch + 1
        if won(self._majority, self.promised):
            return Accept(epoch, self.ballot, self.decision)
        return Prepare(epoch, self.ballot)

    @property
    def decision(self) -> ClusterState:
        """What is decided if this ballot wins: what others may have decided already goes first."""
        return self.vote.value if self.vote else self.value

    @property
    def decided(self) -> bool:
        """Whether a majority has accepted it."""
        return won(self._majority, self.accepted)

    def on_answer(self, node: str, answer: Answer) -> Attempt:
        """The attempt after an answer to one of its questions; what is of no use to it leaves it as it is."""
        if answer.epoch != self.state.epoch + 1 or not isinstance(answer, Promise | Accepted):
            return self
        if answer.ballot != self.ballot:
            return self
        if isinstance(answer, Accepted):
            return msgspec.structs.replace(self, accepted=self.accepted | {node})
        if won(self._majority, self.promised):
            return self  # the value is chosen
        vote = max(filter(None, (self.vote, answer.vote)), key=_ballot, default=None)
        return msgspec.structs.replace(self, promised=self.promised | {node}, vote=vote)


def _ballot(vote: Vote) -> Ballot:
    return vote.ballot
