"""Reaping: tombstones and what has expired leave the disks, and what was deleted never comes back.

The first primary of a partition finds versions without a visible value and asks every member, twice,
`reap_age` apart. All primaries must durably hold exactly that version, both times; nobody may keep a hint for
the key or have an operation under way with it. So whatever else is known of the key can only be in messages
sent before the first answers, and those have arrived before the second. Anyone who is away or disagrees keeps
it alive.
docs/anti-entropy.md argues why each of these is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from kvstore.config import AntiEntropySettings, Limits
from kvstore.errors import Corruption, InvalidRequest, KVError
from kvstore.protocol.messages import Candidate, ReapCheck, ReapConfirm
from kvstore.quorum.background.exchange import Lost, Pause
from kvstore.quorum.background.merkle import Scan
from kvstore.quorum.operation import Errand
from kvstore.ring import check_data_key, partition_bounds, partition_of, split_data_key
from kvstore.versions import decode_version, digest

if TYPE_CHECKING:
    from kvstore.quorum.coordinator import Coordinator

_FOR_EVER = float("inf")
_KEYS_A_MESSAGE = 256
_KEYS_A_PASS = 65_536
_SLICE_PAUSE = 0.05
_LIMITS = Limits()
_STOOD_STILL = 5.0
"""Seconds without a timer: the failure detector's are not half a second apart."""


class Ask(NamedTuple):
    """Ask these nodes; go on with the candidates that all of them confirm."""

    nodes: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    commit: bool


_Flow: TypeAlias = Generator[Ask | Pause, tuple[Candidate, ...], None]
_Confirmed: TypeAlias = Generator[Ask | Pause, tuple[Candidate, ...], tuple[Candidate, ...]]


class Reaper:
    """One node's part: passes over its partitions, and answers to others. `wall` tells the time in ms."""

    def __init__(
        self,
        core: Coordinator,
        scan: Scan,
        wall: Callable[[], int],
        exchanging: Callable[[int], bool],
        settings: AntiEntropySettings,
    ) -> None:
        self._core = core
        self._scan = scan
        self._wall = wall
        self._exchanging = exchanging
        self._settings = settings
        self._cursor = b""
        self._flow: _Flow | None = None
        self._answers: dict[str, frozenset[Candidate]] = {}
        self._asked: Ask | None = None
        self._result: tuple[Candidate, ...] = ()
        self._failed = False
        self._wake_at = settings.reap_interval
        self._seen = 0.0
        self._seen_wall = 0
        self._silent_until = 0.0

    # time

    def next_deadline(self) -> float:
        """When `on_timer` next has work, in monotonic seconds."""
        return self._wake_at

    def start(self, now: float) -> None:
        """The node starts: the first pass begins after an interval."""
        self._wake_at = now + self._settings.reap_interval
        self._seen, self._seen_wall = now, self._wall()

    def on_timer(self, now: float) -> None:
        """Take the pass a step further, or begin one."""
        self._look_at_clocks()
        if now < self._wake_at:
            return
        self._wake_at = _FOR_EVER
        try:
            if self._flow is None:
                self._flow = self._pass()
                step = next(self._flow)
            elif self._failed:
                step = self._flow.throw(Lost())
            else:
                step = self._flow.send(self._result)
        except (StopIteration, Lost, KVError):
            self._flow = None
            self._failed = False
            self._wake_at = now + self._settings.reap_interval
        else:
            self._carry_out(step)

    def _look_at_clocks(self) -> None:
        """Who stood still has messages of any age before it, and confirms nothing until it has read them.

        Monotonic clocks stand still with a machine that is suspended, so both are looked at.
        """
        now, wall = self._core.now, self._wall()
        gap = max(now - self._seen, (wall - self._seen_wall) / 1000)
        self._seen, self._seen_wall = now, wall
        if gap > _STOOD_STILL and self._everyone():
            self._silent_until = now + self._settings.reap_age / 2

    def _carry_out(self, step: Ask | Pause) -> None:
        self._result = ()
        if isinstance(step, Pause):
            self._wake_at = self._core.now + step.seconds
            return
        self._asked = step
        self._answers = {}
        for node in step.nodes:
            ConfirmOperation(self, self._core, node, step, self._settings.timeout)
        self._decide()

    def on_answer(self, asked: Ask, node: str, positions: Sequence[int]) -> None:
        """What `node` confirms."""
        if asked is self._asked:
            candidates = asked.candidates
            self._answers[node] = frozenset(candidates[i] for i in positions if i < len(candidates))
            self._decide()

    def on_lost(self, asked: Ask) -> None:
        """Somebody does not answer: the pass is over."""
        if asked is self._asked:
            self._asked = None
            self._failed = True
            self._wake_at = self._core.now

    def _decide(self) -> None:
        asked = self._asked
        if asked is not None and len(self._answers) == len(asked.nodes):
            self._asked = None
            confirmed = [c for c in asked.candidates if all(c in each for each in self._answers.values())]
            self._result = tuple(confirmed)
            self._wake_at = self._core.now

    # a pass

    def _pass(self) -> _Flow:
        waiting: list[tuple[Candidate, ...]] = []
        for batch in self._candidates():
            if not batch:
                yield Pause(_SLICE_PAUSE)
            elif confirmed := (yield from self._confirmed(batch)):
                waiting.append(confirmed)
        if not waiting:
            return
        yield Pause(self._settings.reap_age)
        for batch in waiting:
            if confirmed := (yield from self._confirmed(batch)):
                yield from self._reap(confirmed)

    def _candidates(self) -> Iterator[tuple[Candidate, ...]]:
        """From where the last pass ended: batches, empty ones for slices of the scan that held too few."""
        found: list[Candidate] = []
        total = 0
        while total < _KEYS_A_PASS and (entries := self._slice()):
            found += [Candidate(k, digest(v)) for k, v in entries if self._dead(v) and self._is_mine(k)]
            while len(found) >= _KEYS_A_MESSAGE:
                yield tuple(found[:_KEYS_A_MESSAGE])
                total += _KEYS_A_MESSAGE
                del found[:_KEYS_A_MESSAGE]
            yield ()
        if found:
            yield tuple(found)

    def _slice(self) -> list[tuple[bytes, bytes]]:
        """The next entries; none at the end, after which the next ones are the first."""
        partitions = self._core.state.ring.partitions
        first, end = partition_bounds(0, partitions)[0], partition_bounds(partitions - 1, partitions)[1]
        entries: list[tuple[bytes, bytes]] = []
        size = 0
        for key, version in self._scan(max(self._cursor, first), end):
            entries.append((key, version))
            size += len(version)
            if len(entries) >= self._settings.slice or size >= 2**20:
                break
        self._cursor = entries[-1][0] + b"\0" if entries else b""
        return entries

    def _confirmed(self, batch: tuple[Candidate, ...]) -> _Confirmed:
        """Those of a batch that every member confirms, this one first: it is cheaper to ask."""
        own = tuple(batch[i] for i in self.confirm(batch))
        return (yield Ask(self._everyone(), own, False)) if own else ()

    def _reap(self, batch: tuple[Candidate, ...]) -> _Flow:
        """The others first: while this node holds a version, another pass will find what was left over."""
        for nodes in sorted({self._core.primaries(candidate.key) for candidate in batch}):
            others = tuple(node for node in nodes if node != self._core.name)
            group = tuple(candidate for candidate in batch if self._core.primaries(candidate.key) == nodes)
            self.reap((yield Ask(others, group, True)))

    def _is_mine(self, key: bytes) -> bool:
        try:
            check_data_key(key, _LIMITS)
        except InvalidRequest:  # no internal key: nobody's, and refused by whoever would be asked about it
            return False
        return self._core.primaries(key)[0] == self._core.name

    def _everyone(self) -> tuple[str, ...]:
        """All other members, dead ones too: what they hold counts."""
        return tuple(m.node for m in self._core.state.members if m.node != self._core.name)

    def _dead(self, version: bytes) -> bool:
        """Whether nobody can see anything of it any more, by this node's clock."""
        try:
            return not decode_version(version).visible(self._wall())
        except Corruption:
            return False

    # what this node confirms

    def confirm(self, candidates: Sequence[Candidate]) -> tuple[int, ...]:
        """Positions of those that nothing here speaks against."""
        if self._core.now < self._silent_until:
            return ()
        busy = self._core.keys_under_way()
        return tuple(i for i, c in enumerate(candidates) if c.key not in busy and self._agrees(c))

    def _agrees(self, candidate: Candidate) -> bool:
        core, key = self._core, candidate.key
        partition = partition_of(split_data_key(key)[0], core.state.ring.partitions)
        if core.hints.holds(key) or self._exchanging(partition):
            return False
        if core.name not in core.primaries(key):
            return True
        version = core.replica.read(key)
        durable = core.replica.unsynced(key) == 0
        return durable and bool(version) and digest(version) == candidate.digest and self._dead(version)

    def reap(self, candidates: Sequence[Candidate]) -> tuple[int, ...]:
        """Delete what is confirmed still; returns the positions."""
        confirmed = self.confirm(candidates)
        for i in confirmed:
            self._core.reap(candidates[i].key)
        return confirmed

    def on_check(self, message: ReapCheck) -> ReapConfirm:
        """The answer to another node."""
        self._look_at_clocks()
        act = self.reap if message.commit else self.confirm
        return ReapConfirm(message.request, act(message.candidates))


class ConfirmOperation(Errand):
    """One node being asked."""

    __slots__ = ("_asked", "_owner")

    def __init__(self, owner: Reaper, core: Coordinator, node: str, asked: Ask, timeout: float) -> None:
        super().__init__(core, node, timeout)
        self._owner = owner
        self._asked = asked
        core.transport.send(node, ReapCheck(self.number, core.state.epoch, asked.candidates, asked.commit))

    def on_confirm(self, node: str, positions: Sequence[int]) -> None:
        """What the node confirms."""
        if node == self.node:
            self.finish()
            self._owner.on_answer(self._asked, node, positions)

    def on_lost(self) -> None:
        """See Errand: who does not know does not confirm."""
        self._owner.on_lost(self._asked)
