"""An exception that nobody expected ends what it happened in, and nothing else of the same turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from kvstore.config import AntiEntropySettings, QuorumSettings
from kvstore.errors import InternalError, StorageFailed
from kvstore.gossip import FailureDetector
from kvstore.node.replica_service import ReplicaService
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import ClientRequest, Failed, Stored
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import ReadSame, ReplicaRead, ReplicaWrite, TreeNode, WriteAck
from kvstore.protocol.table import PeerMessage
from kvstore.quorum.background.anti_entropy import AntiEntropy
from kvstore.quorum.background.hint_expiry import HintExpiry
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.background.reap import Reaper
from kvstore.quorum.background.replay import HintReplay
from kvstore.quorum.hints import Hints
from kvstore.quorum.mint import Mint
from kvstore.quorum.read import ReadOperation
from kvstore.quorum.rpc import Answer
from kvstore.quorum.write import WriteOperation
from kvstore.versions import Digest, Dot, EncodedVersion, InternalKey, Sibling, Version, encode_version
from tests.plain import Get, Put, data_key, token
from tests.unit.quorum_cluster import Cluster, Host


class Defect(Exception):
    pass


def fails(*_: object) -> None:
    raise Defect


@pytest.fixture
def defects(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """What the nodes report, in place of the failure of the test."""
    found: list[Exception] = []
    monkeypatch.setattr(Host, "defect", lambda _, error: found.append(error))
    return found


def test_a_failing_action_after_a_sync_does_not_keep_others_from_their_acknowledgement(
    monkeypatch: pytest.MonkeyPatch, defects: list[Exception]
) -> None:
    """Seen: WRITE_TIMEOUT, "2 of 2 replicas confirmed it", for a client that had nothing to do with it."""
    cluster = Cluster()
    answered = WriteOperation.on_answer

    def on_answer(self: WriteOperation, node: str, answer: Answer, now: Instant) -> None:
        if self.request.call.key == b"bad" and node == "n1":
            raise Defect
        answered(self, node, answer, now)

    monkeypatch.setattr(WriteOperation, "on_answer", on_answer)
    numbers = {key: cluster.start("n1", Put("b", key, b"v")) for key in (b"1", b"bad", b"2")}
    cluster.run()
    replies = cluster.hosts["n1"].replies
    assert isinstance(replies[numbers[b"1"]], Stored)
    assert isinstance(replies[numbers[b"2"]], Stored)
    assert [type(error) for error in defects] == [Defect]
    assert cluster.hosts["n1"].status().counters.defects == 1
    cluster.move(10.0)
    assert numbers[b"bad"] in replies, "it gets its timeout"
    assert cluster.hosts["n1"].status().in_flight == 0


def lost_writes(cluster: Cluster) -> dict[str, list[int]]:
    """No acknowledgement arrives; the numbers of the writes that each node would acknowledge."""
    numbers: dict[str, list[int]] = {}

    def note(sender: str, _to: str, message: PeerMessage) -> bool:
        if isinstance(message, WriteAck):
            numbers.setdefault(sender, []).extend(message.numbers)
        return not isinstance(message, WriteAck)

    cluster.passes = note
    return numbers


@pytest.mark.parametrize("method", ["on_time", "on_gone", "on_cancelled", "on_answer"])
def test_a_failing_operation_does_not_keep_others_from_their_turn(
    method: str, monkeypatch: pytest.MonkeyPatch, defects: list[Exception]
) -> None:
    """Two puts are under way, and one input concerns both: the first of them fails in it."""
    cluster = Cluster()
    numbers = lost_writes(cluster)
    do = getattr(WriteOperation, method)

    def fail(self: WriteOperation, *arguments: object) -> None:
        if self.request.call.key == b"bad" and arguments[0] != "n1":
            raise Defect
        do(self, *arguments)

    monkeypatch.setattr(WriteOperation, method, fail)
    bad = cluster.start("n1", Put("b", b"bad", b"v", timeout=3.0))
    good = cluster.start("n1", Put("b", b"good", b"v", timeout=3.0))
    cluster.run()
    node, replies = cluster.hosts["n1"].node, cluster.hosts["n1"].replies
    assert not replies
    match method:
        case "on_cancelled":
            node.on_cancelled({bad, good}, cluster.instant)
        case "on_answer":
            node.on_frame("n2", [WriteAck(tuple(numbers["n2"]))], cluster.instant)
        case "on_gone":
            node.on_link_lost("n2", cluster.instant)
            node.on_link_lost("n3", cluster.instant)
        case "on_time":
            cluster.now += 3.0
            node.on_timer(cluster.instant)
        case _:
            raise AssertionError(method)
    assert good in replies
    assert defects
    assert {type(error) for error in defects} == {Defect}


def test_a_failing_read_does_not_keep_others_from_the_answer_that_they_share(
    monkeypatch: pytest.MonkeyPatch, defects: list[Exception]
) -> None:
    cluster = Cluster()
    questions: dict[bytes, int] = {}

    def note(_sender: str, _to: str, message: PeerMessage) -> bool:
        if isinstance(message, ReplicaRead):
            questions[message.key] = message.number
        return not isinstance(message, ReplicaRead)

    cluster.passes = note
    do = ReadOperation.on_answer

    def fail(self: ReadOperation, *arguments: Any) -> None:
        if self.request.call.key == b"bad":
            raise Defect
        do(self, *arguments)

    monkeypatch.setattr(ReadOperation, "on_answer", fail)
    calls = {key: cluster.start("n1", Get("b", key, r=3)) for key in (b"1", b"bad", b"2")}
    cluster.run()
    for node in ("n2", "n3"):
        cluster.hosts["n1"].node.on_frame(node, [ReadSame(tuple(questions.values()))], cluster.instant)
    assert cluster.hosts["n1"].replies.keys() == {calls[b"1"], calls[b"2"]}
    assert [type(error) for error in defects] == [Defect, Defect]


def test_a_request_that_meets_a_defect_gets_an_internal_error_and_nothing_stays_behind(
    monkeypatch: pytest.MonkeyPatch, defects: list[Exception]
) -> None:
    cluster = Cluster()
    cluster.stored_reply("n1", Put("b", b"k", b"v"))
    node = cluster.hosts["n1"].node
    monkeypatch.setattr(node._coordinator, "_carry_out", fails)
    cluster.requests += 2
    calls: list[tuple[int, ClientRequest]] = [(1001, Get("b", b"k")), (1002, Put("b", b"k", b"v"))]
    node.on_requests(calls, cluster.instant)
    for number, _ in calls:
        error = cluster.hosts["n1"].replies[number].error  # type: ignore[union-attr]
        assert isinstance(error, InternalError)
        assert "Defect" in str(error)
    assert cluster.hosts["n1"].status().in_flight == 0
    assert len(defects) == 2


@pytest.mark.parametrize(
    ("part", "method", "answered"),
    [(Mint, "mint", True), (WriteOperation, "send", False)],
    ids=["that cannot be made", "that cannot be sent"],
)
def test_a_failing_write_does_not_take_the_others_of_its_turn_along(
    part: type, method: str, answered: bool, monkeypatch: pytest.MonkeyPatch, defects: list[Exception]
) -> None:
    """All writes of a turn are appended in one batch, and then each is sent out."""
    do = getattr(part, method)

    def fail(self: Any, *arguments: Any) -> object:
        request = self.request if isinstance(self, WriteOperation) else arguments[0]
        if request.call.key == b"bad":
            raise Defect
        return do(self, *arguments)

    monkeypatch.setattr(part, method, fail)
    cluster = Cluster()
    host = cluster.hosts["n1"]
    keys = {1001: b"1", 1002: b"bad", 1003: b"2"}
    host.node.on_requests([(n, Put("b", key, b"v", timeout=3.0)) for n, key in keys.items()], cluster.instant)
    cluster.run()
    assert isinstance(host.replies[1001], Stored)
    assert isinstance(host.replies[1003], Stored)
    assert (1002 in host.replies) == answered
    assert [type(error) for error in defects] == [Defect]
    cluster.move(4.0)
    assert isinstance(host.replies[1002], Failed)
    assert host.status().in_flight == 0


TIMED: list[tuple[type, str]] = [
    (HintReplay, "_on_time"),
    (HintExpiry, "_pass"),
    (AntiEntropy, "_until_next"),
    (Reaper, "_pass"),
    (Reaper, "_look_at_clocks"),
    (FailureDetector, "on_timer"),
    (WriteOperation, "on_time"),
]
"""What is done when the time of something has come."""


@pytest.mark.parametrize("failing", TIMED, ids=lambda each: f"{each[0].__name__}.{each[1]}")
def test_a_failing_timer_does_not_keep_the_others_from_theirs_nor_the_node_busy(
    failing: tuple[type, str], monkeypatch: pytest.MonkeyPatch, defects: list[Exception]
) -> None:
    """A garbage hint raised in every timer: no probe, no deadline, no repair any more."""
    ran: Counter[tuple[type, str]] = Counter()
    fail: set[tuple[type, str]] = set()
    for part, method in TIMED:
        monkeypatch.setattr(part, method, counted(ran, fail, part, method))
    settings = NodeSettings(
        quorum=QuorumSettings(hint_age=100.0), anti_entropy=AntiEntropySettings(3.0, 1.0, reap_interval=2.0)
    )
    cluster = Cluster(settings=settings)
    cluster.kill("n3")
    cluster.stored_reply("n1", Put("b", b"k", b"v"))
    cluster.stuck.add("n2")
    number = cluster.start("n1", Put("b", b"slow", b"v"))
    ran.clear()
    fail.add(failing)
    cluster.move(10.0)
    assert {type(error) for error in defects} == {Defect}
    assert len(defects) <= 2 * 11, "once a second on each node"
    assert set(ran) == set(TIMED) - {failing}
    cluster.stuck.clear()
    cluster.move(1.0)
    assert number in cluster.hosts["n1"].replies
    cluster.stored_reply("n1", Put("b", b"k2", b"v"))


def counted(
    ran: Counter[tuple[type, str]], fail: set[tuple[type, str]], part: type, method: str
) -> Callable[..., object]:
    do = getattr(part, method)

    def run(self: object, *arguments: object) -> object:
        if (part, method) in fail:
            raise Defect
        ran[part, method] += 1
        return do(self, *arguments)

    return run


def test_a_failing_message_does_not_take_the_others_of_its_frame_along(
    monkeypatch: pytest.MonkeyPatch, defects: list[Exception]
) -> None:
    monkeypatch.setattr(ReplicaService, "_stored", fails)
    cluster = Cluster()
    node = cluster.hosts["n1"].node
    key = data_key(token("b", b"k"), "b", b"k")
    version = encode_version(Version((Dot("a", 1),), (Sibling(Dot("a", 1), b"v"),)))
    read = ReplicaRead(1, 1, key, Digest(bytes(16)))
    node.on_frame("n2", [read, ReplicaWrite(2, 1, key, version), read], cluster.instant)
    assert cluster.stored("n1", "b", b"k") == version
    assert len(defects) == 2


def test_the_end_of_the_engine_is_no_defect_of_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """After it nothing may be done: the process ends, and recovery decides."""
    cluster = Cluster()

    def end(*_: object) -> None:
        raise StorageFailed("gone")

    monkeypatch.setattr(cluster.hosts["n1"].node._coordinator, "_carry_out", end)
    cluster.error("n1", Put("b", b"k", b"v"))
    monkeypatch.setattr(FailureDetector, "on_timer", end)
    cluster.now += 10.0
    with pytest.raises(StorageFailed):
        cluster.hosts["n1"].node.on_timer(cluster.instant)


def test_a_tree_that_could_not_follow_a_write_proves_nothing_until_it_is_built_anew(
    monkeypatch: pytest.MonkeyPatch, defects: list[Exception]
) -> None:
    """Seen: replicas differed, and `kvctl repair` said that all of them are equal."""
    bad = data_key(token("b", b"7"), "b", b"7")
    update = Trees.update
    broken: list[Trees] = []

    def fail(self: Trees, key: bytes, old: bytes, new: bytes) -> None:
        if self in broken and key == bad:
            raise Defect
        update(self, InternalKey(key), EncodedVersion(old), EncodedVersion(new))

    monkeypatch.setattr(Trees, "update", fail)
    cluster = Cluster()
    for i in range(30):
        cluster.stored_reply("n1", Put("b", b"%d" % i, b"v", w=3))
    cluster.move(30.0)
    host = cluster.hosts["n3"]
    broken.append(host.node.base.trees)
    context = cluster.found("n1", Get("b", b"7")).context
    cluster.start("n1", Put("b", b"7", b"new", context))
    cluster.run()
    root = TreeNode(cluster.state.ring.partition("b", b"7"), 3, 0)
    assert host.node.base.trees.node(root) is None
    assert host.status().counters.trees_distrusted == 1
    assert len(defects) == 1
    broken.clear()
    host.node.repair_now(cluster.instant)
    assert host.status().anti_entropy.wanted > 0
    cluster.move(30.0)
    assert host.status().anti_entropy.wanted == 0
    roots = {each.node.base.trees.node(root) for each in cluster.hosts.values()}
    assert len(roots) == 1
    assert None not in roots


def test_one_failing_hint_does_not_end_the_expiry_of_all_others(
    monkeypatch: pytest.MonkeyPatch, defects: list[Exception]
) -> None:
    cluster = Cluster(settings=NodeSettings(quorum=QuorumSettings(hint_age=30.0)))
    cluster.kill("n3")
    for i in range(5):
        cluster.stored_reply("n1", Put("b", b"%d" % i, b"v"))
    have_expired = Hints.have_expired
    failures = iter([True, True])  # of the first looks

    def fail(self: Hints, target: str, wall: int) -> bool:
        if next(failures, False):
            raise Defect
        return have_expired(self, target, wall)

    monkeypatch.setattr(Hints, "have_expired", fail)
    cluster.move(120.0)
    assert {type(error) for error in defects} == {Defect}
    assert cluster.hints("n1") == {}
