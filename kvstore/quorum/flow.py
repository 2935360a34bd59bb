"""Long linear work that a node does by itself, told in order: generators that yield what they wait for.

A flow yields a step: questions to other nodes, time, or the disk. What it is sent back has the time and the
outcomes. So the exchange of two replicas reads from top to bottom, although a thousand requests are served
between its lines. One driver runs all flows of a node.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import ClassVar, NamedTuple, TypeAlias, TypeVar

import msgspec

from kvstore.errors import KVError
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import QuorumMessage, ReplicaWrite, WriteAck
from kvstore.protocol.table import ANSWERS
from kvstore.quorum.deadlines import NEVER, Deadlines
from kvstore.quorum.held_outputs import HeldOutputs
from kvstore.quorum.operation import Named
from kvstore.quorum.outputs import ACK, Own
from kvstore.quorum.rpc import Answer, Rpc, Waiting
from kvstore.versions import NO_KEY, InternalKey

_REST = 1.0
"""Seconds before a flow that met a defect begins again."""

Question: TypeAlias = QuorumMessage
"""What flows ask: messages that the table calls questions. Its number is given to one when it is sent."""

T = TypeVar("T")


class Ask(NamedTuple):
    """Ask nodes, and go on when each has answered or `timeout` seconds are over."""

    questions: tuple[tuple[str, Question], ...]
    timeout: float


class Pause(NamedTuple):
    """Go on after so many seconds."""

    seconds: float


class Idle(NamedTuple):
    """Go on after so many seconds, or when somebody hurries the flow."""

    seconds: float


class Sync(NamedTuple):
    """Go on when all writes up to an LSN are on this node's disk."""

    lsn: int


Outcome = Answer | KVError | None
"""Of a question: its answer, the reason why it was refused, or nothing: it is lost, or the node is late."""


class Resumed(NamedTuple):
    """What a flow goes on with; `outcomes` in the order of the questions."""

    now: Instant
    outcomes: tuple[Outcome, ...] = ()


Step: TypeAlias = Ask | Pause | Idle | Sync
Flow: TypeAlias = Generator[Step, Resumed, T]


class Lost(Exception):
    """A node did not answer, or not what was asked: this is over, a later try will do better."""


class FlowState(Named):
    """Where a flow is."""

    PREPARED = "it has not begun"
    RUNNING = "it is being run: no input of the node comes between"
    ASKING = "it waits for the answers of nodes"
    PAUSED = "it waits for a time"
    IDLE = "likewise, or for somebody who hurries it"
    SYNCING = "it waits for the disk"
    ENDED = "it is over; one that lasts begins anew after a rest"


class FlowEvent(Named):
    """What moves a flow."""

    BEGUN = "it begins, or begins anew"
    ASKS = "it asks nodes"
    PAUSES = "it lets time pass"
    IDLES = "it has nothing to do for some time"
    SYNCS = "it needs its writes on the disk, and they are not there yet"
    RESUMED = "what it waited for is there: all outcomes, the time, or the disk"
    OVER = "it has come to its end, or met a defect"


class Flows:
    """Runs the flows of the node `name`."""

    def __init__(self, name: str, rpc: Rpc, deadlines: Deadlines, durability: HeldOutputs) -> None:
        self.name = name
        self.rpc = rpc
        self.deadlines = deadlines
        self.durability = durability

    def begin(self, flow: Flow[None], now: Instant) -> None:
        """Run a flow to its end, beginning at once."""
        RunningFlow(self, lambda _: flow, lasting=False).start(now)

    def lasting(self, begin: Callable[[Instant], Flow[None]]) -> RunningFlow:
        """A flow that has no end: after a defect, or if it ends all the same, it begins anew."""
        return RunningFlow(self, begin, lasting=True)


class RunningFlow:
    """One flow and what it waits for."""

    __slots__ = ("_begin", "_common", "_flow", "_lasting", "_missing", "_outcomes", "_timer", "state")

    MOVES: ClassVar[Mapping[tuple[FlowState, FlowEvent], FlowState]] = {
        (FlowState.PREPARED, FlowEvent.BEGUN): FlowState.RUNNING,
        (FlowState.RUNNING, FlowEvent.ASKS): FlowState.ASKING,
        (FlowState.RUNNING, FlowEvent.PAUSES): FlowState.PAUSED,
        (FlowState.RUNNING, FlowEvent.IDLES): FlowState.IDLE,
        (FlowState.RUNNING, FlowEvent.SYNCS): FlowState.SYNCING,
        (FlowState.ASKING, FlowEvent.RESUMED): FlowState.RUNNING,
        (FlowState.PAUSED, FlowEvent.RESUMED): FlowState.RUNNING,
        (FlowState.IDLE, FlowEvent.RESUMED): FlowState.RUNNING,
        (FlowState.SYNCING, FlowEvent.RESUMED): FlowState.RUNNING,
        (FlowState.RUNNING, FlowEvent.OVER): FlowState.ENDED,
        (FlowState.ENDED, FlowEvent.BEGUN): FlowState.RUNNING,
    }

    def __init__(self, common: Flows, begin: Callable[[Instant], Flow[None]], lasting: bool) -> None:
        self._common = common
        self._begin = begin
        self._lasting = lasting
        self._flow: Flow[None] | None = None
        self._timer = common.deadlines.timer(self._on_time)
        self._outcomes: list[Outcome] = []
        self._missing = 0
        self.state = FlowState.PREPARED

    def start(self, now: Instant) -> None:
        """Begin."""
        self._move(FlowEvent.BEGUN)
        self._flow = self._begin(now)
        self._run(None, now)

    def start_at(self, when: float) -> None:
        """Begin at `when` (monotonic seconds)."""
        self._timer.set(when)

    def hurry(self, when: float) -> None:
        """If it is idle, go on at `when` (monotonic seconds) or before."""
        if self.state is FlowState.IDLE:
            self._timer.set_by(when)

    def answered(self, position: int, outcome: Outcome, now: Instant) -> None:
        """The outcome of the question at a position of what the flow has asked, or of its sync."""
        self._outcomes[position] = outcome
        self._missing -= 1
        if not self._missing:
            self._resume(Resumed(now, tuple(self._outcomes)), now)

    def _on_time(self, now: Instant) -> None:
        if self._flow is None:
            self.start(now)
        else:
            self._resume(Resumed(now), now)

    def _resume(self, resumed: Resumed, now: Instant) -> None:
        self._move(FlowEvent.RESUMED)
        self._run(resumed, now)

    def _move(self, event: FlowEvent) -> None:
        self.state = self.MOVES[self.state, event]

    def _run(self, resumed: Resumed | None, now: Instant) -> None:
        """Give the flow what it waited for, until it wants something that is not there yet."""
        assert self._flow is not None
        try:
            step = next(self._flow) if resumed is None else self._flow.send(resumed)
            while self._is_there(step, now):
                step = self._flow.send(Resumed(now))
        except StopIteration:
            self._end(now)
        except BaseException:
            self._end(now)
            raise

    def _end(self, now: Instant) -> None:
        self._flow = None
        self._move(FlowEvent.OVER)
        if self._lasting:
            self._timer.set(now.mono + _REST)
        else:
            self._timer.remove()

    def _is_there(self, step: Step, now: Instant) -> bool:
        """Whether the flow need not wait for this; else it will go on when it comes."""
        common = self._common
        match step:
            case Ask(questions, timeout):
                if not questions:
                    return True
                self._move(FlowEvent.ASKS)
                self._expect(len(questions))
                until = now.mono + timeout
                for position, (node, message) in enumerate(questions):
                    _Question(self, common.rpc, position, node, message, until)
                return False
            case Sync(lsn):
                if not common.durability.must_wait(lsn):
                    return True
                self._move(FlowEvent.SYNCS)
                self._expect(1)
                question = _OwnSync(self, common.rpc, common.name)
                common.durability.after(lsn, Own(question.number, ACK), now)
                return False
            case Idle(seconds) | Pause(seconds):
                self._move(FlowEvent.IDLES if isinstance(step, Idle) else FlowEvent.PAUSES)
                self._timer.set(now.mono + seconds)
                return False

    def _expect(self, outcomes: int) -> None:
        self._outcomes = [None] * outcomes
        self._missing = outcomes


class _Question(Waiting):
    """One question to one node, until it is answered, refused or lost."""

    __slots__ = ("_flow", "_message", "_node", "_position", "_rpc")

    EXPECTS = tuple(ANSWERS)

    def __init__(
        self, flow: RunningFlow, rpc: Rpc, position: int, node: str, message: Question, until: float
    ) -> None:
        self._flow = flow
        self._rpc = rpc
        self._position = position
        self._node = node
        self._message = message
        self.size = self.client = 0
        rpc.register(self, until)
        rpc.send(node, msgspec.structs.replace(message, number=self.number))

    def touches(self) -> InternalKey:
        """See Waiting."""
        return self._message.key if isinstance(self._message, ReplicaWrite) else NO_KEY

    def on_answer(self, node: str, answer: Answer, now: Instant) -> None:
        """The node has answered."""
        if ANSWERS[type(answer)] is type(self._message):
            self._end(node, answer, now)

    def on_refusal(self, node: str, error: KVError, now: Instant) -> None:
        """The node did not do it."""
        self._end(node, error, now)

    def on_gone(self, node: str, now: Instant) -> None:
        """The question or its answer may be lost."""
        self._end(node, None, now)

    def on_time(self, now: Instant) -> None:
        """The node takes too long."""
        self._end(self._node, None, now)

    def _end(self, node: str, outcome: Outcome, now: Instant) -> None:
        if node == self._node:
            self._rpc.forget(self)
            self._flow.answered(self._position, outcome, now)


class _OwnSync(Waiting):
    """A flow's own writes, until they are on the disk."""

    __slots__ = ("_flow", "_name", "_rpc")

    EXPECTS = (WriteAck,)

    def __init__(self, flow: RunningFlow, rpc: Rpc, name: str) -> None:
        self._flow = flow
        self._rpc = rpc
        self._name = name
        self.size = self.client = 0
        rpc.register(self, NEVER)

    def on_answer(self, node: str, answer: Answer, now: Instant) -> None:
        """They are, if it is this node that says so."""
        if node == self._name:
            self._rpc.forget(self)
            self._flow.answered(0, answer, now)
