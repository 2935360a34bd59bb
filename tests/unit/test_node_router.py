"""A message that the table names is one that the node handles; who forgets that is told here."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_type_hints

import msgspec
import pytest

from kvstore.node.node import Node
from kvstore.node.parts import Background
from kvstore.node.questions import partitions_of
from kvstore.protocol.client import CLIENT_REQUESTS, Put
from kvstore.protocol.fields import Number
from kvstore.protocol.peer import (
    Forward,
    RangeItems,
    ReadSame,
    ReapCheck,
    ReplicaRead,
    ReplicaWrite,
    TreeRead,
    WriteAck,
)
from kvstore.protocol.table import ANSWERS, PEER_TABLE, PeerMessage
from kvstore.versions import BucketName, UserKey
from tests.plain import data_key, token
from tests.unit.quorum_cluster import Cluster
from tests.wire_samples import sample

APART = {WriteAck, ReadSame, ReplicaWrite, ReplicaRead, Forward}
"""What `Router.route` handles before it looks into its table."""
BY_OTHERS = {ReplicaRead, ReplicaWrite, Forward}
"""Questions that are no part of background work."""

QUESTIONS = {"status"}
"""What can be asked of a node and changes nothing."""


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster()


def test_every_message_of_the_table_is_handled(cluster: Cluster) -> None:
    assert set(cluster.hosts["n1"].node._router._handlers) | APART == set(PEER_TABLE)


def test_every_question_of_background_work_is_answered(cluster: Cluster) -> None:
    questions = set(cluster.hosts["n1"].node.background.questions)
    assert questions == set(ANSWERS.values()) - BY_OTHERS


@pytest.mark.parametrize("question", sorted(set(ANSWERS.values()) - BY_OTHERS, key=repr))
def test_an_answer_waits_for_the_disk(question: Any) -> None:
    """What it may tell of could be lost in a crash. A reaper's question is about what is on the disk."""
    cluster = Cluster(5)
    first, second, _ = cluster.replicas("carts", b"k")
    cluster.stuck = {first}
    cluster.start(second, Put(BucketName("carts"), UserKey(b"k"), b"v"))
    cluster.run()
    answers: list[type] = []

    def note(sender: str, _to: str, message: PeerMessage) -> bool:
        if sender == first and ANSWERS.get(type(message)) is question:
            answers.append(type(message))
        return True

    cluster.passes = note
    message = asked_of(cluster, question)
    cluster.hosts[first].node.on_checked(second, [message], cluster.instant, delay=0.0)
    cluster.run()
    assert bool(answers) is (question is ReapCheck)
    cluster.stuck = set()
    cluster.run()
    assert len(answers) == 1


def asked_of(cluster: Cluster, question: Any) -> Any:
    """A question that nodes of this cluster can answer."""
    message = msgspec.structs.replace(sample(question), epoch=cluster.state.epoch)
    if isinstance(message, ReapCheck):
        key = data_key(token("carts", b"k"), "carts", b"k")
        candidates = tuple(candidate._replace(key=key) for candidate in message.candidates)
        message = msgspec.structs.replace(message, candidates=candidates)
    return message


def test_every_input_of_a_node_ends_its_turn() -> None:
    """Left out, jobs and timers would begin with the next input only, which may be long in coming."""
    methods = {name: method for name, method in vars(Node).items() if not name.startswith("_")}
    inputs = {name for name, method in methods.items() if "now" in getattr(method, "__annotations__", ())}
    calls = {name: set(methods[name].__code__.co_names) for name in inputs}
    assert {name for name in inputs if not calls[name] & {"_turn", "on_checked"}} == QUESTIONS


def test_all_that_can_be_started_is() -> None:
    """Left out of `Background.start`, it would never run, and nobody would miss it."""
    started: list[str] = []

    class Part:
        def __init__(self, name: str) -> None:
            self.name = name

        def start(self, now: object) -> None:
            started.append(self.name)

    parts: dict[str, Any] = {field.name: Part(field.name) for field in fields(Background)}
    now: Any = None
    Background(**parts).start(now)
    types = get_type_hints(Background)
    assert sorted(started) == sorted(name for name, kind in types.items() if hasattr(kind, "start"))


@pytest.mark.parametrize("question", [TreeRead, RangeItems, ReapCheck])
def test_a_question_about_partitions_that_have_changed_is_refused(cluster: Cluster, question: type) -> None:
    """Which these are follows from the kinds of its fields."""
    placements = cluster.hosts["n1"].node.base.placements
    key_token = token("carts", b"k")
    key = data_key(key_token, "carts", b"k")
    message = sample(question)
    if isinstance(message, ReapCheck):
        candidates = tuple(candidate._replace(key=key) for candidate in message.candidates)
        message = msgspec.structs.replace(message, candidates=candidates)
        expected = [cluster.state.ring.partition("carts", b"k")] * 2
    elif isinstance(message, TreeRead):
        expected = [node.partition for node in message.nodes]
    else:
        expected = [message.partition]
    assert list(partitions_of(question)(message, placements)) == expected


class AboutNothing(msgspec.Struct):
    number: Number


def test_a_question_that_names_no_partition_cannot_be_put() -> None:
    with pytest.raises(TypeError, match="AboutNothing does not say which partitions"):
        partitions_of(AboutNothing)


def test_every_request_of_clients_is_carried_out(cluster: Cluster) -> None:
    assert set(cluster.hosts["n1"].node._coordinator._operations) == set(CLIENT_REQUESTS)
