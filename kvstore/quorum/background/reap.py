"""Reaping: tombstones and what has expired leave the disks, and what was deleted never comes back.

The first primary of a partition finds versions without a visible value and asks every member, twice,
`reap_age` apart. All primaries must durably hold exactly that version, both times; nobody may keep a hint for
the key or have an operation under way with it. So whatever else is known of the key can only be in messages
sent before the first answers, and those have arrived before the second. Anyone who is away or disagrees keeps
it alive.
docs/anti-entropy.md argues why each of these is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from kvstore.config import AntiEntropySettings, Limits
from kvstore.errors import Corruption, InvalidRequest, KVError
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import Candidate, ReapCheck, ReapConfirm
from kvstore.quorum.background.answering import AnsweredQuestions, Answering
from kvstore.quorum.background.reap_rounds import ReapRounds
from kvstore.quorum.counters.repair import RepairCounters
from kvstore.quorum.flow import Ask, Flow, Flows, Lost, Pause
from kvstore.quorum.local import LocalCopy
from kvstore.quorum.mint import Mint
from kvstore.quorum.ownership import Ownership
from kvstore.ring import check_data_key, partition_bounds
from kvstore.versions import NO_VERSION, EncodedVersion, InternalKey, decode_version, digest

_KEYS_A_MESSAGE = 256
_KEYS_A_PASS = 65_536
_SLICE_PAUSE = 0.05
_LIMITS = Limits()
_CLOCK_INTERVAL = 1.0
_STOOD_STILL = 5.0
"""Seconds between two looks at the clocks, which should be a second apart."""

_Batch = tuple[Candidate, ...]


class Reaper:
    """One node's part: passes over its partitions, and answers to others.

    `known` scans what is not hidden by a fence; `exchanging` tells whether versions of a partition may be on
    their way here for an exchange.
    """

    def __init__(
        self,
        flows: Flows,
        local: LocalCopy,
        known: Callable[[bytes, bytes | None], Iterator[tuple[InternalKey, EncodedVersion]]],
        exchanging: Callable[[int], bool],
        ownership: Ownership,
        mint: Mint,
        sync_soon: Callable[[int], None],
        counters: RepairCounters,
        settings: AntiEntropySettings,
    ) -> None:
        self._rpc = flows.rpc
        self._local = local
        self._known = known
        self._exchanging = exchanging
        self._ownership = ownership
        self._mint = mint
        self._sync_soon = sync_soon
        self._counters = counters
        self._settings = settings
        self._cursor = b""
        self._flow = flows.lasting(self._passes)
        self._clocks = flows.deadlines.timer(self._look_at_clocks)
        self._rounds = ReapRounds(settings.reap_age / 2)  # the clocks of two nodes need not be equally fast
        self._seen = Instant(0.0, 0)
        self._silent_until = 0.0

    # time

    def start(self, now: Instant) -> None:
        """The node starts: the first pass begins after an interval."""
        self._flow.start_at(now.mono + self._settings.reap_interval)
        self._seen = now
        self._clocks.set(now.mono + _CLOCK_INTERVAL)

    def _look_at_clocks(self, now: Instant) -> None:
        """Who stood still has messages of any age before it, and confirms nothing until it has read them.

        Monotonic clocks stand still with a machine that is suspended, so both are looked at.
        """
        gap = max(now.mono - self._seen.mono, (now.wall - self._seen.wall) / 1000)
        self._seen = now
        if gap > _STOOD_STILL and self._ownership.others:
            self._silent_until = now.mono + self._settings.reap_age / 2
        self._clocks.set(now.mono + _CLOCK_INTERVAL)

    @property
    def questions(self) -> AnsweredQuestions:
        """What is answered here. Only what is on the disk already is confirmed."""
        return {ReapCheck: Answering(self.on_check, durable=False)}

    # passes

    def _passes(self, now: Instant) -> Flow[None]:
        while True:
            with suppress(Lost, KVError):  # the next pass finds what is left over
                yield from self._pass(now)
            now, _ = yield Pause(self._settings.reap_interval)

    def _pass(self, now: Instant) -> Flow[None]:
        waiting: list[_Batch] = []
        total = 0
        found: _Batch = ()
        while total < _KEYS_A_PASS and (entries := self._slice()):
            found += tuple(
                Candidate(k, digest(v)) for k, v in entries if self._dead(v, now.wall) and self._is_mine(k)
            )
            while len(found) >= _KEYS_A_MESSAGE:
                batch, found = found[:_KEYS_A_MESSAGE], found[_KEYS_A_MESSAGE:]
                total += _KEYS_A_MESSAGE
                now, confirmed = yield from self._confirmed(batch, now)
                waiting.append(confirmed)
            now, _ = yield Pause(_SLICE_PAUSE)
        if found:
            now, confirmed = yield from self._confirmed(found, now)
            waiting.append(confirmed)
        waiting = [batch for batch in waiting if batch]
        if not waiting:
            return
        now, _ = yield Pause(self._settings.reap_age)
        for batch in waiting:
            now, confirmed = yield from self._confirmed(batch, now, again=True)
            if confirmed:
                now = yield from self._reap_everywhere(confirmed, now)

    def _slice(self) -> list[tuple[InternalKey, EncodedVersion]]:
        """The next entries; none at the end, after which the next ones are the first."""
        partitions = self._ownership.state.ring.partitions
        first, end = partition_bounds(0, partitions)[0], partition_bounds(partitions - 1, partitions)[1]
        entries: list[tuple[InternalKey, EncodedVersion]] = []
        size = 0
        for key, version in self._known(max(self._cursor, first), end):
            entries.append((key, version))
            size += len(version)
            if len(entries) >= self._settings.slice or size >= 2**20:
                break
        self._cursor = entries[-1][0] + b"\0" if entries else b""
        return entries

    def _confirmed(self, batch: _Batch, now: Instant, again: bool = False) -> Flow[tuple[Instant, _Batch]]:
        """Those of a batch that every member confirms, this one first: it is cheaper to ask.

        `again`: and has confirmed a reap age ago, so that none refuses to delete what others have deleted.
        """
        own = tuple(batch[i] for i in self.confirm(batch, now))
        if not own:
            return now, ()
        return (yield from self._ask(self._ownership.others, own, commit=False, again=again))

    def _reap_everywhere(self, batch: _Batch, now: Instant) -> Flow[Instant]:
        """The others first: while this node holds a version, another pass will find what was left over."""
        ownership = self._ownership
        for nodes in sorted({ownership.primaries(candidate.key) for candidate in batch}):
            others = [node for node in nodes if node != ownership.name]
            group = tuple(candidate for candidate in batch if ownership.primaries(candidate.key) == nodes)
            now, confirmed = yield from self._ask(others, group, commit=True)
            self.reap(confirmed, now)
        return now

    def _ask(
        self, nodes: Sequence[str], candidates: _Batch, commit: bool, again: bool = False
    ) -> Flow[tuple[Instant, _Batch]]:
        """The candidates that all of these nodes confirm; raises Lost if one of them does not say."""
        message = ReapCheck(0, self._ownership.state.epoch, candidates, commit)
        now, outcomes = yield Ask(tuple((node, message) for node in nodes), self._settings.timeout)
        agreed = set(range(len(candidates)))
        for outcome in outcomes:
            if not isinstance(outcome, ReapConfirm):
                raise Lost
            agreed.intersection_update(outcome.ripe if again else outcome.positions)
        return now, tuple(candidates[i] for i in sorted(agreed))

    def _is_mine(self, key: InternalKey) -> bool:
        try:
            check_data_key(key, _LIMITS)
        except InvalidRequest:  # no internal key: nobody's, and refused by whoever would be asked about it
            return False
        return self._ownership.primaries(key)[0] == self._ownership.name

    def _dead(self, version: EncodedVersion, wall: int) -> bool:
        """Whether nobody can see anything of it any more, by this node's clock."""
        try:
            return not decode_version(version).visible(wall)
        except Corruption:
            return False

    # what this node confirms

    def confirm(self, candidates: Sequence[Candidate], now: Instant) -> tuple[int, ...]:
        """Positions of those that nothing here speaks against."""
        if now.mono < self._silent_until:
            return ()
        busy = self._rpc.keys_under_way()
        return tuple(i for i, c in enumerate(candidates) if c.key not in busy and self._agrees(c, now))

    def _agrees(self, candidate: Candidate, now: Instant) -> bool:
        key, replica = candidate.key, self._local.replica
        partition = self._ownership.partition(key)
        if self._local.hints.holds(key) or self._exchanging(partition):
            return False
        if self._ownership.state.move(partition):  # who is coming may hold a value that the tombstone covers
            return False
        if not self._ownership.are_here(key):
            return self._has_left(key)
        version = replica.read(key)
        durable = replica.unsynced(key) == 0
        same = bool(version) and digest(version) == candidate.digest
        return durable and same and self._dead(version, now.wall)

    def _has_left(self, key: InternalKey) -> bool:
        """Whether nothing is left here of a key that has moved away; what there is goes, and nobody needs it.

        It would be older than all that is deleted meanwhile, and come back if the partition did.
        """
        replica = self._local.replica
        if version := replica.read(key):
            self._sync_soon(replica.replace({key: (version, NO_VERSION)}))
        return not replica.unsynced(key)

    def reap(self, candidates: Sequence[Candidate], now: Instant) -> None:
        """Delete what is confirmed still."""
        for i in self.confirm(candidates, now):
            self._delete(candidates[i].key, now)

    def _delete(self, key: InternalKey, now: Instant) -> None:
        replica = self._local.replica
        version = replica.read(key)
        self._mint.reaped(version, now.wall)
        self._sync_soon(replica.replace({key: (version, NO_VERSION)}))
        self._counters.reaped += 1

    def on_check(self, sender: str, message: ReapCheck, now: Instant) -> ReapConfirm:
        """The answer to another node."""
        self._look_at_clocks(now)
        confirmed = self._confirm_to(sender, message, now)
        if message.commit:
            for i in confirmed:
                self._rounds.forget(sender, message.candidates[i])
                self._delete(message.candidates[i].key, now)
        ripe = tuple(i for i in confirmed if self._rounds.may_commit(sender, message.candidates[i], now.mono))
        return ReapConfirm(message.number, confirmed, ripe)

    def _confirm_to(self, sender: str, message: ReapCheck, now: Instant) -> tuple[int, ...]:
        """Positions that are confirmed; of those to be deleted only what was confirmed a round before."""
        rounds, candidates = self._rounds, message.candidates
        confirmed = self.confirm(candidates, now)
        for i in set(range(len(candidates))).difference(confirmed):
            rounds.forget(sender, candidates[i])
        if message.commit:
            return tuple(i for i in confirmed if rounds.may_commit(sender, candidates[i], now.mono))
        for i in confirmed:
            rounds.confirmed(sender, candidates[i], now.mono)
        return confirmed
