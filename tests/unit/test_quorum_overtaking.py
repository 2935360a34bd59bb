"""Reads and writes of one key that are under way at the same time: nothing is repaired that is only late."""

from __future__ import annotations

import pytest

from kvstore.protocol.client import Found, Get, Put
from kvstore.protocol.peer import ReadReply, ReadSame, ReplicaRead, ReplicaWrite, WriteAck
from kvstore.protocol.table import PeerMessage
from kvstore.versions import BucketName, UserKey
from tests.unit.quorum_cluster import Cluster

CARTS = BucketName("carts")
OLD, NEW = b"old", b"new"


def put(value: bytes, key: bytes = b"k") -> Put:
    return Put(CARTS, UserKey(key), value)


GET = Get(CARTS, UserKey(b"k"))


class Held:
    """A cluster whose messages of these kinds to other nodes wait until they are handed over."""

    def __init__(self, *kinds: type[PeerMessage]) -> None:
        self.cluster = Cluster()
        self.first, *self.others = self.cluster.replicas(CARTS, b"k")
        self.kinds = kinds
        self.messages: list[tuple[str, PeerMessage]] = []
        self.answers: list[PeerMessage] = []
        self.cluster.passes = self._passes

    def _passes(self, sender: str, to: str, message: PeerMessage) -> bool:
        if to == self.first and isinstance(message, ReadSame | ReadReply | WriteAck):
            self.answers.append(message)
        if sender == self.first and isinstance(message, self.kinds):
            self.messages.append((to, message))
            return False
        return True

    def hand_over(self) -> None:
        """What waits, in order and in one frame for each node."""
        held, self.messages, self.kinds = self.messages, [], ()
        self.answers.clear()
        for node in self.others:
            if frame := [message for to, message in held if to == node]:
                self.cluster.hosts[node].node.on_frame(self.first, frame, self.cluster.instant)
        self.cluster.run()

    def repairs(self) -> int:
        return self.cluster.hosts[self.first].status().counters.read_repairs


def test_a_read_in_the_frame_of_a_write_finds_what_was_written() -> None:
    held = Held(ReplicaWrite, ReplicaRead)
    number = held.cluster.start(held.first, put(OLD))
    for key in (b"a", b"b"):
        held.cluster.start(held.first, put(NEW, key))
    read = held.cluster.start(held.first, GET)
    held.cluster.run()
    held.hand_over()
    assert [type(each) for each in held.answers].count(ReadSame) == 1
    assert not any(isinstance(each, ReadReply) for each in held.answers)
    replies = held.cluster.hosts[held.first].replies
    found = replies[read]
    assert number in replies
    assert isinstance(found, Found)
    assert [each.value for each in found.siblings] == [OLD]
    assert held.repairs() == 0


def test_writes_of_a_frame_are_carried_out_together_beside_reads_of_other_keys() -> None:
    held = Held(ReplicaWrite, ReplicaRead)
    keys = (b"%d" % i for i in range(100))
    alike = [key for key in keys if held.cluster.replicas(CARTS, key)[0] == held.first]
    for key in alike[:3]:
        held.cluster.start(held.first, put(NEW, key))
        held.cluster.start(held.first, GET)
    held.cluster.run()
    held.hand_over()
    numbers = [each.numbers for each in held.answers if isinstance(each, WriteAck)]
    assert list(map(len, numbers)) == [3, 3], "one for each of the other replicas"


@pytest.mark.parametrize("stuck", [False, True], ids=["its disk is ready", "its disk is slow"])
def test_a_coordinator_that_has_written_since_takes_its_own_for_an_answer_when_it_is_durable(
    stuck: bool,
) -> None:
    held = Held(ReplicaRead)
    cluster, first = held.cluster, held.first
    cluster.start(first, put(OLD))
    cluster.run()
    read = cluster.start(first, GET)
    cluster.run()
    if stuck:
        cluster.stuck = {first}
    cluster.start(first, put(NEW))
    cluster.run()
    held.hand_over()
    assert any(isinstance(each, ReadReply) for each in held.answers), "it has the new one"
    replies = cluster.hosts[first].replies
    assert (read in replies) is not stuck, "the new one is not on this disk"
    cluster.stuck = set()
    cluster.run()
    found = replies[read]
    assert isinstance(found, Found)
    assert {each.value for each in found.siblings} == {OLD, NEW}
    assert held.repairs() == 0
