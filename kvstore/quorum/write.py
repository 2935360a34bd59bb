"""Coordinating a write: the new version to all replicas, a reply after W durable acks, hints for the rest.

The coordinator's own copy must be durable before it replies, whatever W is: it made the dot. So two quorums
must be won, W of the replicas (of each list, while the partition moves) and this node by itself. When the
replicas change under a write, what was minted begins again with the present ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, TypeAlias

from msgspec.structs import replace

from kvstore.config import QuorumSettings
from kvstore.contexts import encode_seen
from kvstore.errors import (
    Corruption,
    KVError,
    Overloaded,
    StaleRing,
    StorageError,
    VersionTooLarge,
    WriteTimeout,
)
from kvstore.protocol.client import Explain, Failed, Stored
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import ReplicaWrite, WriteAck
from kvstore.quorum.admission import Admission
from kvstore.quorum.context_keys import ContextKeys
from kvstore.quorum.counters.requests import RequestCounters
from kvstore.quorum.forward import Forwards
from kvstore.quorum.guard import Guard, told
from kvstore.quorum.held_outputs import HeldOutputs
from kvstore.quorum.local import LocalCopy
from kvstore.quorum.mint import Mint, Minted, Written
from kvstore.quorum.operation import Moves, Named, Operation, Respond
from kvstore.quorum.outputs import OwnAcks
from kvstore.quorum.placement import Placements
from kvstore.quorum.request import Request
from kvstore.quorum.rpc import Answer, Rpc
from kvstore.quorum.votes import Outcome, Quorum, Quorums, count
from kvstore.versions import (
    NO_TOKEN,
    DottedContext,
    EncodedVersion,
    InternalKey,
    covers,
)


class WriteState(Named):
    """Where a write is."""

    WAITING = "the client waits for W replicas"
    REPLIED = "the client has its reply; the other replicas get the version, or a hint"
    OWING = "the client has left or was told that time is over; the work counts until W replicas are through"
    FINISHED = "every target has it, or a hint is kept"


class WriteEvent(Named):
    """What moves a write."""

    ACKNOWLEDGED = "W replicas and the coordinator have it on their disks"
    OUT_OF_REACH = "too many are lost for W acknowledgements"
    GIVEN_UP = "the deadline has passed, or the client has left"
    PLACED = "nothing is awaited any more"
    MOVED = "its replicas are others now: it has begun again with these"


_E = WriteEvent
_WAITING, _REPLIED, _OWING, _FINISHED = WriteState
"""Python 3.11 takes ten times as long to find a member in its Enum, and every acknowledgement needs some."""


_STATE_PAUSE = 0.05
"""Seconds until a replica that knows another state is asked again: about what a state needs to spread."""

_Made: TypeAlias = tuple[Request, Respond, EncodedVersion, EncodedVersion, Stored]
"""A write with what is stored, the version that is to be written over it, and its reply."""


class Writes:
    """What the writes of one node have in common."""

    def __init__(
        self,
        rpc: Rpc,
        local: LocalCopy,
        mint: Mint,
        context_keys: ContextKeys,
        placements: Placements,
        durability: HeldOutputs,
        admission: Admission,
        counters: RequestCounters,
        forwards: Forwards,
        guard: Guard,
        settings: QuorumSettings,
    ) -> None:
        self.rpc = rpc
        self.local = local
        self.placements = placements
        self.coordinator = Quorum(frozenset((placements.name,)), 1)
        """This node, whose dot it is."""
        self.admission = admission
        self.patience = settings.write_patience
        self._mint = mint
        self._context_keys = context_keys
        self._durability = durability
        self._counters = counters
        self._forwards = forwards
        self._guard = guard
        self._taken: list[tuple[Request, DottedContext, Written, Respond]] = []

    def write(self, request: Request, seen: DottedContext, written: Written, respond: Respond) -> None:
        """Take a write over what its writer has seen: it is carried out with all others of this turn."""
        self._taken.append((request, seen, written, respond))

    def carry_out(self, now: Instant) -> None:
        """At the end of a turn: make the new versions, append them here in one batch, and send them out."""
        if not (taken := self._taken):
            return
        self._taken = []
        made: dict[InternalKey, _Made] = {}
        for request, seen, written, respond in taken:
            if request.key in made:  # which is to be stored before something is written over it
                self._append(made.values(), now)
                made = {}
            try:
                # its quorum is one of other replicas, if they have changed since it was placed
                self.placements.check_epoch(request.placement.epoch, request.key)
                stored = self.local.read(request.placement, request.key)
                minted = self._mint.mint(request, stored, seen, written)
                result = self._stored(request, minted, seen)
            except Exception as error:  # noqa: BLE001  (nobody else's write may suffer from it)
                self._refuse(request, respond, error, now)
            else:
                made[request.key] = request, respond, stored, minted.encoded, result
        self._append(made.values(), now)

    def _append(self, made: Iterable[_Made], now: Instant) -> None:
        """All in one batch; but what must be kept as a hint alone, as there may be no room for it."""
        together = []
        for each in made:
            if each[0].placement.stands_in_for:
                self._append_batch([each], now)
            else:
                together.append(each)
        if together:
            self._append_batch(together, now)

    def _append_batch(self, made: Sequence[_Made], now: Instant) -> None:
        """Append these and begin their operations, or refuse them."""
        copies = [(request.placement, request.key, old, new) for request, _, old, new, _ in made]
        try:
            lsn = self.local.append(copies, now)
        except Exception as error:  # noqa: BLE001  (their clients are to be told, whatever it is)
            for request, respond, *_ in made:
                self._refuse(request, respond, error, now)
            return
        numbers = []
        for request, respond, _, version, result in made:
            self._counters.lww_overwritten += result.overwritten
            try:
                operation = WriteOperation(self, respond, request, version, result, now)
                numbers.append(operation.number)
                operation.send()
            except Exception as error:  # noqa: BLE001  (it ends at its deadline)
                self._guard.report(error)
        self._durability.after(lsn, OwnAcks(tuple(numbers)), now)

    def again(self, operation: WriteOperation, respond: Respond, now: Instant) -> None:
        """Bring what has been minted to the present replicas of its key: a quorum of those of before is none.

        Only they are counted, this node's own copy too: what was here may have left with the partition.
        """
        request = operation.request
        placement = self.placements.place(request.partition, request.bucket.n)
        request = replace(request, placement=placement)
        try:
            if placement.here or placement.stands_in_for:
                lsn = self.local.store(request.key, operation.version, placement.stands_in_for)
            else:
                lsn = self.local.replica.last_lsn
        except KVError:
            respond(Failed(WriteTimeout(0, request.w)), now)
            return
        begun = WriteOperation(self, respond, request, operation.version, operation.result, now)
        begun.send()
        for target in placement.unplaced:
            begun.hint_here(target, now)
        self._durability.after(lsn, OwnAcks((begun.number,)), now)

    def _refuse(self, request: Request, respond: Respond, error: Exception, now: Instant) -> None:
        """Nothing was done. Whoever mints a dot must know what is stored: else another replica does it."""
        if isinstance(error, Corruption) and self._forwards.pass_on(request, respond):
            return
        respond(Failed(told(error)), now)
        if not isinstance(error, KVError):
            self._guard.report(error)

    def _stored(self, request: Request, minted: Minted, seen: DottedContext) -> Stored:
        version, sign = minted.version, self._context_keys.sign
        # of its own earlier writes those that it could not replace
        left = [dot for dot in seen.dots if not covers(version.context, dot)] if seen.dots else ()
        if len(version.siblings) == 1 and not left:
            context, written = sign(version.context, request.key), NO_TOKEN
        else:
            context = sign(seen.context, request.key, (*left, minted.dot))
            written = encode_seen(version.context, request.token)
        siblings = len(version.visible(request.now.wall))
        return Stored(context, siblings, overwritten=minted.overwritten, written=written)


class WriteOperation(Operation):
    """One version on its way to its replicas. It outlives its reply until every target has it or a hint."""

    __slots__ = (
        "_again",
        "_awaiting",
        "_common",
        "_fallbacks",
        "_hinted",
        "_patience_ends",
        "acked",
        "lost",
        "quorums",
        "request",
        "result",
        "version",
    )

    EXPECTS = (WriteAck,)
    MOVES: ClassVar[Moves] = {
        (_WAITING, _E.ACKNOWLEDGED): _REPLIED,
        (_WAITING, _E.OUT_OF_REACH): _REPLIED,
        (_WAITING, _E.GIVEN_UP): _OWING,
        (_WAITING, _E.MOVED): _FINISHED,
        (_OWING, _E.ACKNOWLEDGED): _REPLIED,
        (_OWING, _E.PLACED): _FINISHED,
        (_REPLIED, _E.PLACED): _FINISHED,
    }

    def __init__(
        self,
        common: Writes,
        respond: Respond,
        request: Request,
        version: EncodedVersion,
        result: Stored,
        now: Instant,
    ) -> None:
        self._common = common
        self.state = _WAITING
        self.request = request
        self.version = version
        self.result = result
        self._patience_ends = patience_ends = now.mono + common.patience
        placement = request.placement
        self.quorums: Quorums = (*placement.write_quorums(request.w, request.sloppy), common.coordinator)
        self.acked: set[str] = set()
        self.lost = placement.dead
        self._again: tuple[tuple[float, str, str], ...] = ()
        self._hinted = placement.unplaced
        self._awaiting = placement.remote.copy()
        self._fallbacks: tuple[str, ...] = ()
        super().__init__(common.rpc, respond, request.deadline, patience_ends, len(version), request.client)

    def send(self) -> None:
        """Ask every remote target; the local batch has been appended and waits for its sync."""
        for node, hint_for in self._awaiting.items():
            self._ask(node, hint_for)

    def _ask(self, node: str, hint_for: str) -> None:
        request = self.request
        epoch = request.placement.epoch
        self._rpc.send(node, ReplicaWrite(self.number, epoch, request.key, self.version, hint_for))

    def touches(self) -> InternalKey:
        """See Waiting."""
        return self.request.key

    # inputs

    def on_answer(self, node: str, answer: Answer, now: Instant) -> None:
        """A replica, a fallback for one, or this node has the version durably; a late ack counts too."""
        self._awaiting.pop(node, None)
        self.acked.add(node)
        if self.state is not _WAITING or self.lost or len(self.acked) >= self.request.w:
            self._advance(now)

    def on_refusal(self, node: str, error: KVError, now: Instant) -> None:
        """A replica could not store it: keep a hint, and give up when W cannot be reached.

        One that is only overloaded is asked again in the time it wants, if the client has that much; one that
        knows other replicas, when one of the two has heard of the newer state.
        """
        hint_for = self._awaiting.get(node, self.request.placement.remote.get(node))
        if isinstance(error, Overloaded | StaleRing) and self.state is _WAITING and hint_for is not None:
            if self._begins_again(now):
                return
            when = now.mono + (error.retry_after if isinstance(error, Overloaded) else _STATE_PAUSE)
            if when < self.deadline:
                self._again = (*self._again, (when, node, hint_for))
                if when < self.wake_at:
                    self.wake(when)
                return
        self.on_gone(node, now)

    def on_gone(self, node: str, now: Instant) -> None:
        """What was sent to `node` may be lost: keep a hint."""
        if node in self._awaiting:
            self.lost |= {node}
            self._substitute(node, now)
            self._advance(now)

    def on_cancelled(self, now: Instant) -> None:
        """The version is here and on its way: it still goes to all replicas."""
        self._give_up(now)

    def on_time(self, now: Instant) -> None:
        """Ask the overloaded once more; the client gets its error at the deadline, slow replicas a hint.

        Not before their patience for a client that has little time: hints are work, and under overload all
        are late.
        """
        self._ask_again(now)
        late = now.mono >= self.deadline
        if late:
            self._give_up(now)
        if now.mono >= self._patience_ends:
            for node in tuple(self._awaiting):
                self._substitute(node, now)
            if late:
                for node in tuple(self._awaiting):  # fallbacks asked just now: no time is left for them
                    self.hint_here(self._awaiting.pop(node), now)
                self._finish()
                return
            self._patience_ends = min(now.mono + self._common.patience, self.deadline)
            self._advance(now)
        if self.state is not _FINISHED:
            self._sleep(now)

    def hint_early(self, now: Instant) -> None:
        """End the patience with the slow replicas: the memory is wanted."""
        self._patience_ends = now.mono
        self.on_time(now)

    def _begins_again(self, now: Instant) -> bool:
        """Whether its replicas are others now, by the state of this node: then another operation goes on."""
        request, placements = self.request, self._common.placements
        current = placements.state.is_current(request.partition, request.call.bucket, request.placement.epoch)
        if current or self.state is not _WAITING:
            return False
        self.move(_E.MOVED)
        self._rpc.forget(self)
        respond, self._respond = self._respond, None
        assert respond is not None
        self._common.again(self, respond, now)
        return True

    def _sleep(self, now: Instant) -> None:
        times = [when for when, _, _ in self._again]
        if now.mono < self.deadline:
            times.append(self.deadline)
        self.wake(min([self._patience_ends, *times]))

    def _ask_again(self, now: Instant) -> None:
        due = [each for each in self._again if each[0] <= now.mono]
        if due:
            self._again = tuple(each for each in self._again if each[0] > now.mono)
            for _, node, hint_for in due:
                self._ask(node, hint_for)

    # fallbacks and hints

    def _substitute(self, node: str, now: Instant) -> None:
        """Give up waiting for `node`: ask a live fallback to keep the hint, else keep it here."""
        target = self._awaiting.pop(node) or node
        request = self.request
        fallback = self._common.placements.another_fallback(
            request.partition, request.bucket.n, self._asked(), node
        )
        if not fallback:
            self.hint_here(target, now)
            return
        self._fallbacks += (fallback,)
        self._awaiting[fallback] = target
        if request.sloppy:
            self.quorums = (*self._joined_by(fallback, target), self._common.coordinator)
        self._ask(fallback, target)

    def _joined_by(self, fallback: str, target: str) -> Iterator[Quorum]:
        """The quorums of replicas, with a fallback in those that its target is a replica of."""
        lists = self.request.placement.written_strict
        for (voters, needed), nodes in zip(self.quorums[:-1], lists, strict=True):
            yield Quorum(voters | {fallback} if target in nodes else voters, needed)

    def hint_here(self, target: str, now: Instant) -> None:
        """Keep a hint for a replica at this node."""
        # what cannot be kept is counted as dropped: the write itself does not depend on it
        local = self._common.local
        try:
            local.store(self.request.key, self.version, hint_for=target)
        except (StorageError, Overloaded, VersionTooLarge):
            local.hints.lost(target, self.request.key, self.version, now)
        else:
            self._hinted += (target,)

    def _asked(self) -> set[str]:
        return {self._common.placements.name, *self.request.placement.remote, *self._fallbacks}

    # votes, and the end

    def _advance(self, now: Instant) -> None:
        if self.state is _WAITING:
            outcome = count(self.quorums, self.acked, self.lost)
            if outcome is Outcome.WON:
                self.move(_E.ACKNOWLEDGED)
                self.answer(self._stored(), now)
            elif outcome is Outcome.LOST:
                self.move(_E.OUT_OF_REACH)
                self._time_out(now)
        elif self.state is _OWING and count(self.quorums, self.acked) is Outcome.WON:
            self.move(_E.ACKNOWLEDGED)
            self._common.admission.settled(now.mono - self.request.now.mono)
        placed = not self._awaiting and self._common.placements.name in self.acked
        if placed and self.state is not _WAITING:
            self._finish()

    def _give_up(self, now: Instant) -> None:
        """Nobody waits any more, but the replicas have the work before them: it counts until W are through.

        Else the more of it was late, the more would be taken on.
        """
        if self.state is _WAITING:
            self.move(_E.GIVEN_UP)
            self._time_out(now)
            self._common.admission.owed()

    def _finish(self) -> None:
        if self.state is _OWING:
            self._common.admission.settled()
        self.move(_E.PLACED)
        self._rpc.forget(self)

    def _time_out(self, now: Instant) -> None:
        fewest = min(len(members & self.acked) for members, _ in self.quorums[:-1])
        self.fail(WriteTimeout(fewest, self.request.w), now)

    def _voted(self) -> set[str]:
        """Those whose acknowledgement counts."""
        return {node for members, _ in self.quorums[:-1] for node in members & self.acked}

    def _stored(self) -> Stored:
        if not self.request.call.explain:
            return self.result
        placements = self._common.placements
        waiting = tuple(target for target in self._awaiting.values() if target)
        explain = Explain(
            placements.name,
            placements.state.epoch,
            self.request.partition,
            tuple(sorted(self._asked())),
            tuple(sorted(self._voted())),
            hinted=tuple(sorted({*self._hinted, *waiting})),
        )
        return replace(self.result, explain=explain)
