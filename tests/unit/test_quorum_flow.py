"""What a flow waits for, and what it goes on with: answers in any order, refusals, losses, time, the disk."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest

from kvstore.config import QuorumSettings
from kvstore.errors import Overloaded, StorageFailed
from kvstore.lsm import Engine, MemoryFileSystem
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import (
    Candidate,
    RangeDifference,
    ReapCheck,
    ReapConfirm,
    ReplicaWrite,
    TreeHashes,
    TreeRead,
    WriteAck,
)
from kvstore.protocol.table import awaited
from kvstore.quorum.admission import Admission
from kvstore.quorum.counters.requests import RequestCounters
from kvstore.quorum.deadlines import NEVER, Deadlines
from kvstore.quorum.flow import (
    Ask,
    Flow,
    FlowEvent,
    Flows,
    FlowState,
    Idle,
    Pause,
    Question,
    Resumed,
    RunningFlow,
    Sync,
)
from kvstore.quorum.guard import Guard
from kvstore.quorum.held_outputs import HeldOutputs
from kvstore.quorum.outputs import Output, Own
from kvstore.quorum.rpc import Answer, Rpc
from kvstore.versions import Digest, EncodedVersion, InternalKey

REST = 1.0
"""Seconds before a flow that met a defect begins again."""
KEY = b"d" + bytes(8) + b"b\0key"


def number_of(question: Question) -> int:
    number = awaited(question)
    assert number is not None
    return number


class Defect(Exception):
    pass


class Node:
    """What flows stand on, of one node: what they send is kept, time and disk go on when a test says so."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Question]] = []
        self.defects: list[Exception] = []
        self.now = Instant(100.0, 100_000)
        self.syncs_wanted = 0
        self.engine = Engine.open(MemoryFileSystem(), "n1")
        guard = Guard(self.defects.append)
        self.deadlines = Deadlines(guard)
        self.rpc = Rpc(1000, self, self.deadlines, Admission(QuorumSettings(), RequestCounters()), guard)
        self.durability = HeldOutputs(self.engine, self._sync_wanted, self._release, guard)
        self.flows = Flows("n1", self.rpc, self.deadlines, self.durability)

    def send(self, to: str, message: object) -> None:
        assert isinstance(message, TreeRead | ReplicaWrite | ReapCheck)
        self.sent.append((to, message))

    def _sync_wanted(self) -> None:
        self.syncs_wanted += 1

    def _release(self, output: Output, now: Instant) -> None:
        assert isinstance(output, Own)
        self.rpc.on_answer("n1", output.number, output.answer, now)

    def sync(self) -> None:
        self.durability.on_durable(self.engine.sync(), self.now)

    def move(self, seconds: float) -> None:
        self.now = Instant(self.now.mono + seconds, self.now.wall + int(seconds * 1000))
        self.deadlines.on_time(self.now)

    def clients_leave(self) -> None:
        self.rpc.cancel(range(1, 2000), self.now)

    def answer(self, node: str, number: int, answer: Answer) -> None:
        self.rpc.on_answer(node, number, answer, self.now)


class Told:
    """A flow of some steps; `resumed` is what it was told after each, `begun` when it has begun."""

    def __init__(self, *steps: Ask | Pause | Idle | Sync) -> None:
        self.steps = steps
        self.begun: list[float] = []
        self.resumed: list[Resumed] = []
        self.ended = 0

    def flow(self, now: Instant) -> Flow[None]:
        self.begun.append(now.mono)
        for step in self.steps:
            self.resumed.append((yield step))
        self.ended += 1


def begun(node: Node, told: Told) -> list[int]:
    """The numbers of the first questions of a flow that begins now."""
    node.flows.begin(told.flow(node.now), node.now)
    return [number_of(question) for _, question in node.sent]


def nothing_left(node: Node) -> bool:
    return node.rpc.waiting == {} and node.deadlines.sleepers == {} and node.deadlines.next() == NEVER


READ = TreeRead(0, 1, ())
WRITE = ReplicaWrite(0, 1, InternalKey(KEY), EncodedVersion(b"version"), background=True)
CHECK = ReapCheck(0, 1, (Candidate(InternalKey(KEY), Digest(bytes(16))),), False)
THREE = Ask((("n2", READ), ("n3", WRITE), ("n4", CHECK)), 5.0)


def answers(numbers: list[int]) -> list[tuple[str, int, Answer]]:
    return [
        ("n2", numbers[0], TreeHashes(numbers[0], ())),
        ("n3", numbers[1], WriteAck((numbers[1],))),
        ("n4", numbers[2], ReapConfirm(numbers[2], (0,))),
    ]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_outcomes_come_in_the_order_of_the_questions_whatever_the_order_of_the_answers(
    order: tuple[int, ...],
) -> None:
    node, told = Node(), Told(THREE)
    numbers = begun(node, told)
    assert [to for to, _ in node.sent] == ["n2", "n3", "n4"]
    assert len(set(numbers)) == 3
    for position in order:
        assert told.resumed == []
        node.answer(*answers(numbers)[position])
    assert told.resumed == [Resumed(node.now, tuple(answer for _, _, answer in answers(numbers)))]
    assert told.ended == 1
    assert nothing_left(node)


def test_who_refuses_is_lost_or_late_has_that_as_its_outcome() -> None:
    node, told = Node(), Told(Ask((("n2", READ), ("n3", READ), ("n4", READ), ("n5", READ)), 5.0))
    numbers = begun(node, told)
    refusal = Overloaded(1.0)
    node.rpc.on_refusal("n2", numbers[0], refusal, node.now)
    node.rpc.on_gone("n3", node.now)
    node.rpc.on_unsent("n4", [numbers[2]], node.now)
    node.move(4.9)
    assert told.resumed == []
    node.move(0.2)
    assert told.resumed == [Resumed(node.now, (refusal, None, None, None))]
    assert nothing_left(node)


Say = Callable[[Node, int], None]
MEANINGLESS: dict[str, Say] = {
    "another kind of answer": lambda node, number: node.answer(
        "n2", number, RangeDifference(number, (), (), b"")
    ),
    "an acknowledgement": lambda node, number: node.rpc.on_answer_to_all("n2", WriteAck((number,)), node.now),
    "another node's answer": lambda node, number: node.answer("n3", number, TreeHashes(number, ())),
    "another node's refusal": lambda node, number: node.rpc.on_refusal(
        "n3", number, Overloaded(1.0), node.now
    ),
    "the loss of another node": lambda node, number: node.rpc.on_gone("n3", node.now),
    "an answer to another number": lambda node, number: node.answer("n2", 4711, TreeHashes(4711, ())),
    "clients that leave": lambda node, number: node.clients_leave(),
}


@pytest.mark.parametrize("say", MEANINGLESS.values(), ids=MEANINGLESS)
def test_what_was_not_asked_is_not_taken_for_an_answer(say: Say) -> None:
    node, told = Node(), Told(Ask((("n2", READ),), 5.0))
    (number,) = begun(node, told)
    say(node, number)
    assert told.resumed == []
    node.answer("n2", number, TreeHashes(number, ()))
    assert told.resumed == [Resumed(node.now, (TreeHashes(number, ()),))]
    assert node.defects == []


def test_an_answer_that_comes_twice_or_too_late_counts_once() -> None:
    node, told = Node(), Told(Ask((("n2", READ), ("n3", READ)), 5.0), Ask((("n2", READ),), 5.0))
    first, second = begun(node, told)
    hashes = TreeHashes(first, ())
    for _ in range(3):
        node.answer("n2", first, hashes)
    node.rpc.on_refusal("n2", first, Overloaded(1.0), node.now)
    assert told.resumed == []
    node.move(5.0)
    assert told.resumed == [Resumed(node.now, (hashes, None))]
    node.answer("n3", second, TreeHashes(second, ()))
    assert len(told.resumed) == 1, "it waits for another question now"
    third = number_of(node.sent[-1][1])
    node.answer("n2", third, TreeHashes(third, ()))
    assert told.ended == 1
    assert nothing_left(node)
    assert node.defects == []


def test_who_asks_nobody_goes_on_at_once() -> None:
    node, told = Node(), Told(Ask((), 5.0), Ask((), 5.0))
    begun(node, told)
    assert told.resumed == [Resumed(node.now), Resumed(node.now)]
    assert nothing_left(node)


def test_a_write_that_is_asked_for_counts_as_under_way_until_its_outcome_is_there() -> None:
    """Its key may not be reaped meanwhile."""
    node, told = Node(), Told(THREE)
    numbers = begun(node, told)
    assert KEY in node.rpc.keys_under_way()
    node.answer(*answers(numbers)[1])
    assert KEY not in node.rpc.keys_under_way()


def test_a_pause_ends_at_its_time_and_nobody_shortens_it() -> None:
    node, told = Node(), Told(Pause(2.0))
    flow = node.flows.lasting(told.flow)
    flow.start(node.now)
    flow.hurry(node.now.mono)
    node.move(1.9)
    assert told.resumed == []
    node.move(0.1)
    assert told.resumed == [Resumed(node.now)]


@pytest.mark.parametrize(("when", "resumed"), [(0.5, 0.5), (3.0, 2.0), (-1.0, 0.0)])
def test_who_is_idle_is_hurried_and_never_slowed(when: float, resumed: float) -> None:
    node, told = Node(), Told(Idle(2.0), Pause(9.0))
    flow = node.flows.lasting(told.flow)
    flow.start(node.now)
    start = node.now.mono
    flow.hurry(start + when)
    assert node.deadlines.next() == start + (min(resumed, when))
    node.move(resumed)
    assert told.resumed == [Resumed(node.now)]


def test_who_idles_for_ever_goes_on_when_it_is_hurried() -> None:
    node, told = Node(), Told(Idle(NEVER))
    flow = node.flows.lasting(told.flow)
    flow.start(node.now)
    node.move(10_000.0)
    assert told.resumed == []
    flow.hurry(node.now.mono)
    node.move(0.0)
    assert told.resumed == [Resumed(node.now)]


def asking(node: Node, flow: RunningFlow) -> None:
    flow.start(node.now)


def ended(node: Node, flow: RunningFlow) -> None:
    flow.start(node.now)
    number = number_of(node.sent[-1][1])
    node.answer("n2", number, TreeHashes(number, ()))


def waits_for_its_start(node: Node, flow: RunningFlow) -> None:
    flow.start_at(node.now.mono + REST)


@pytest.mark.parametrize("bring", [asking, ended, waits_for_its_start], ids=lambda each: each.__name__)
def test_who_is_not_idle_is_not_hurried(bring: Callable[[Node, RunningFlow], None]) -> None:
    node, told = Node(), Told(Ask((("n2", READ),), 5.0))
    flow = node.flows.lasting(told.flow)
    bring(node, flow)
    before = (list(told.begun), list(told.resumed), node.deadlines.next())
    flow.hurry(node.now.mono)
    node.move(0.1)
    assert (told.begun, told.resumed, node.deadlines.next()) == before


def test_a_sync_goes_on_when_the_writes_are_on_the_disk() -> None:
    node = Node()
    lsn = node.engine.write([(b"n/key", b"value")])
    told = Told(Sync(lsn))
    begun(node, told)
    assert node.syncs_wanted == 1
    node.move(1000.0)
    assert told.resumed == [], "it takes as long as the disk does"
    node.sync()
    assert [resumed.now for resumed in told.resumed] == [node.now]
    assert nothing_left(node)


def test_a_sync_of_what_is_durable_already_goes_on_at_once() -> None:
    node = Node()
    lsn = node.engine.write([(b"n/key", b"value")])
    node.engine.sync()
    told = Told(Sync(lsn), Sync(0))
    begun(node, told)
    assert told.resumed == [Resumed(node.now), Resumed(node.now)]
    assert node.syncs_wanted == 0
    assert nothing_left(node)


def test_only_this_node_itself_says_that_its_writes_are_on_the_disk() -> None:
    node = Node()
    told = Told(Sync(node.engine.write([(b"n/key", b"value")])))
    begun(node, told)
    (number,) = node.rpc.waiting
    node.rpc.on_answer_to_all("n2", WriteAck((number,)), node.now)
    assert told.resumed == []


def test_a_flow_that_runs_once_leaves_nothing_behind() -> None:
    node, told = Node(), Told(Pause(1.0), Ask((("n2", READ),), 2.0))
    begun(node, told)
    assert len(node.deadlines.sleepers) == 1
    node.move(1.0)
    node.move(2.0)
    assert told.ended == 1
    assert nothing_left(node)
    node.move(100.0)
    assert (len(told.begun), told.ended) == (1, 1)


def state(flow: RunningFlow) -> FlowState:
    return flow.state


def fails_after(step: Ask | Pause, failures: int, begun: list[float]) -> Callable[[Instant], Flow[None]]:
    """A flow that meets a defect behind a step, so many times; then it idles."""

    def flow(now: Instant) -> Flow[None]:
        begun.append(now.mono)
        yield step
        if len(begun) <= failures:
            raise Defect
        yield Idle(NEVER)

    return flow


def test_a_lasting_flow_that_meets_a_defect_reports_it_and_begins_again_after_its_rest() -> None:
    node, started = Node(), list[float]()
    flow = node.flows.lasting(fails_after(Pause(2.0), 2, started))
    flow.start(node.now)
    start = node.now.mono
    node.move(2.0)
    assert [type(error) for error in node.defects] == [Defect]
    assert state(flow) is FlowState.ENDED
    assert node.deadlines.next() == start + 2.0 + REST
    for _ in range(40):
        node.move(0.5)
    assert started == [start, start + 3.0, start + 6.0]
    assert len(node.defects) == 2
    assert state(flow) is FlowState.IDLE


def test_a_course_that_makes_every_move_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    node, made = Node(), list[tuple[FlowState, FlowEvent]]()
    move = RunningFlow._move

    def watch(self: RunningFlow, event: FlowEvent) -> None:
        made.append((self.state, event))
        move(self, event)

    monkeypatch.setattr(RunningFlow, "_move", watch)
    lsn = node.engine.write([(b"n/key", b"value")])
    told = Told(Ask((("n2", READ),), 5.0), Ask((), 5.0), Sync(lsn), Sync(lsn), Pause(2.0), Idle(NEVER))
    flow = node.flows.lasting(told.flow)
    flow.start_at(node.now.mono + 1.0)
    assert state(flow) is FlowState.PREPARED
    node.move(1.0)
    assert state(flow) is FlowState.ASKING
    node.answer("n2", number_of(node.sent[0][1]), TreeHashes(number_of(node.sent[0][1]), ()))
    assert state(flow) is FlowState.SYNCING
    node.sync()
    assert state(flow) is FlowState.PAUSED
    flow.hurry(node.now.mono)
    node.move(1.0)
    assert state(flow) is FlowState.PAUSED
    node.move(1.0)
    assert state(flow) is FlowState.IDLE
    flow.hurry(node.now.mono)
    node.move(0.0)
    assert state(flow) is FlowState.ENDED
    node.move(REST)
    assert state(flow) is FlowState.ASKING
    assert set(made) == set(RunningFlow.MOVES)
    assert {event for _, event in RunningFlow.MOVES} == set(FlowEvent)
    assert {FlowState.PREPARED, *RunningFlow.MOVES.values()} == set(FlowState)


def test_a_lasting_flow_that_fails_on_an_answer_keeps_the_defect_from_others_of_its_frame() -> None:
    node, started = Node(), list[float]()
    flow = node.flows.lasting(fails_after(Ask((("n2", WRITE),), 5.0), 1, started))
    flow.start(node.now)
    other = Told(Ask((("n2", WRITE),), 5.0))
    first, second = begun(node, other)
    node.rpc.on_answer_to_all("n2", WriteAck((first, second)), node.now)
    assert [type(error) for error in node.defects] == [Defect]
    assert other.ended == 1
    node.move(REST)
    assert len(started) == 2


def test_a_lasting_flow_that_ends_all_the_same_begins_again_after_its_rest() -> None:
    node, told = Node(), Told(Pause(1.0))
    node.flows.lasting(told.flow).start_at(node.now.mono + 4.0)
    start = node.now.mono
    for seconds in (4.0, 1.0, REST, 1.0, REST):
        assert node.deadlines.next() == node.now.mono + seconds
        node.move(seconds)
    assert told.begun == [start + 4.0, start + 6.0, start + 8.0]


def test_a_flow_that_runs_once_and_fails_leaves_nothing_behind() -> None:
    node = Node()
    node.flows.begin(fails_after(Pause(1.0), 1, [])(node.now), node.now)
    node.move(1.0)
    assert [type(error) for error in node.defects] == [Defect]
    assert nothing_left(node)


def test_the_end_of_the_engine_goes_through_a_flow_to_whoever_runs_the_node() -> None:
    node = Node()

    def flow() -> Flow[None]:
        yield Pause(1.0)
        raise StorageFailed("gone")

    node.flows.begin(flow(), node.now)
    with pytest.raises(StorageFailed):
        node.move(1.0)
