"""A page of the keys of a bucket: what so many replicas hold that no acknowledged write is missed, united.

A page is made of stretches of the ring, each in one partition or in several that follow on each other. This
node reads what it holds there itself, and asks n - w other replicas of each partition what they hold that
differs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from kvstore.config import MIB, Limits, QuorumSettings
from kvstore.errors import Corruption, InternalError, InvalidRequest, KVError, ReadTimeout
from kvstore.node.scan import BeginStep, Step, Wanted, partition_at
from kvstore.node.scan_part import Own, ScanPart
from kvstore.protocol.client import Failed
from kvstore.protocol.instant import Instant
from kvstore.protocol.scan import Scan, Scanned, ScannedKey
from kvstore.quorum.admission import Admission
from kvstore.quorum.counters.requests import RequestCounters
from kvstore.quorum.flow import Ask, Flow, Flows, Sync
from kvstore.quorum.get import shown
from kvstore.quorum.ownership import Ownership
from kvstore.quorum.replica import Replica
from kvstore.quorum.votes import Quorum
from kvstore.ring import partition_bounds, replica_sets, split_data_key
from kvstore.versions import InternalKey, Version, decode_version

_PARTITIONS = 32
"""Of one stretch at most: each has its own replicas, which are asked by themselves."""
_EMPTY_PARTITIONS = 8
"""Of these as many of which this node holds nothing: the others may have much to tell of each."""
_PAGE_BYTES = 4 * MIB
"""Values in a page. A key that has more by itself is named without them."""
_FIRST_SHARE = 0.5
"""Of its time that a page waits for whom it asks first, so that others can be asked."""

Respond: TypeAlias = Callable[[Scanned | Failed], object]


class _Asked(NamedTuple):
    """A page that was asked for, with all that was derived from it once."""

    scan: Scan
    until: bytes
    """The first internal key that is none of the scan."""
    wanted: Wanted
    n: int
    required: int
    limit: int
    deadline: float
    enough: float
    """When a page is given out although there is room in it."""
    now: Instant


class Scans:
    """The pages of one node."""

    def __init__(
        self,
        flows: Flows,
        begin_step: BeginStep,
        replica: Replica,
        ownership: Ownership,
        alive: Callable[[str], bool],
        admission: Admission,
        counters: RequestCounters,
        limits: Limits,
        settings: QuorumSettings,
    ) -> None:
        self._flows = flows
        self._begin_step = begin_step
        self._replica = replica
        self._ownership = ownership
        self._alive = alive
        self._admission = admission
        self._counters = counters
        self._limits = limits
        self._settings = settings

    def begin(self, scan: Scan, respond: Respond, now: Instant) -> None:
        """Make a page; exactly one reply goes to `respond`, now or later.

        That is by the timeout of the request, unless this node's own disk takes longer.
        """
        self._counters.scans += 1
        timeout = min(scan.timeout or self._settings.default_timeout, self._settings.max_timeout)
        if refusal := self._admission.take(timeout, now.mono):
            respond(refusal)
            return
        try:
            asked = self._admit(scan, timeout, now)
        except KVError as error:
            self._answer(respond, Failed(error))
        else:
            self._flows.begin(self._run(asked, respond), now)

    def _answer(self, respond: Respond, reply: Scanned | Failed) -> None:
        """What a page takes tells nothing of how long other requests do: that is not measured."""
        self._admission.settled()
        if isinstance(reply, Failed):
            self._counters.errors += 1
        respond(reply)

    def _admit(self, scan: Scan, timeout: float, now: Instant) -> _Asked:
        self._limits.check_bucket(scan.bucket)
        state = self._ownership.state
        partition_at(scan.cursor, state.ring.partitions)
        partition_at(scan.until, state.ring.partitions, "until")
        if scan.until and scan.until <= scan.cursor:
            raise InvalidRequest("until", "is not behind the cursor")
        bucket = state.bucket(scan.bucket)
        w = scan.w or bucket.w
        if not 1 <= w <= bucket.n:
            raise InvalidRequest("w", f"is {w}, must be between 1 and n={bucket.n} of the bucket")
        return _Asked(
            scan,
            scan.until or partition_bounds(0, 1)[1],
            Wanted(scan.bucket, scan.prefix),
            bucket.n,
            bucket.n - w + 1,
            min(scan.limit or Limits.scan_keys, Limits.scan_keys),
            now.mono + timeout,
            now.mono + timeout * _FIRST_SHARE,
            now,
        )

    def _run(self, asked: _Asked, respond: Respond) -> Flow[None]:
        try:
            page = yield from self._page(asked)
        except KVError as error:
            self._answer(respond, Failed(error))
        except Exception as error:
            self._answer(respond, Failed(InternalError(f"the node met a defect: {error!r}")))
            raise
        else:
            self._answer(respond, page)

    def _page(self, asked: _Asked) -> Flow[Scanned]:
        """Stretch by stretch, until there is enough for a page, or half of the time is gone."""
        page, step = _Page(asked), self._begin_step(asked.limit)
        cursor, now, goes_on = asked.scan.cursor, asked.now, True
        while goes_on and not step.is_over() and now.mono <= asked.enough:
            parts = self._parts(asked, step, cursor)
            read = self._replica.last_lsn
            try:
                now = yield from self._hear(asked, parts, now)
            except KVError:
                if not page.keys:
                    raise
                break  # the next page tells of it
            yield Sync(read)  # or a crash could take back what the client is told
            cursor, goes_on = self._unite(asked, page, parts)
        return Scanned(tuple(page.keys), cursor)

    # what this node holds

    def _parts(self, asked: _Asked, step: Step, cursor: bytes) -> list[ScanPart]:
        """The partitions of a stretch. One of which this node is no replica is a stretch by itself.

        Others may have much to tell of it. Clients ask a replica of where a page begins, so that is seldom.
        """
        partitions = self._ownership.state.ring.partitions
        first = partition_at(cursor, partitions)
        parts: list[ScanPart] = []
        empty = 0
        for partition in range(first, min(first + _PARTITIONS, partitions)):
            start, end = partition_bounds(partition, partitions)
            start, end = max(start, cursor), min(end, asked.until)
            state, name = self._ownership.state, self._ownership.name
            primaries = replica_sets(state, partition, asked.n).read
            own, until = self._own(asked, step, start, end) if name in primaries else (None, end)
            if own is None and parts:
                break
            here = (name, own) if own is not None else None
            others = [node for node in primaries if node != name and self._alive(node)]
            quorum = Quorum(frozenset(primaries), asked.required)
            parts.append(ScanPart(state.epoch, partition, asked.wanted, start, until, here, quorum, others))
            empty += not own
            over = end == asked.until or until != end or step.is_over()
            if own is None or over or empty == _EMPTY_PARTITIONS:
                break
        return parts

    def _own(
        self, asked: _Asked, step: Step, start: bytes, end: bytes
    ) -> tuple[dict[InternalKey, Own] | None, bytes]:
        """What this node holds of a partition, None if it cannot tell; and how far that goes."""
        try:
            held = step.read(asked.wanted, start, end)
            own = {key: Own(version, decode_version(version)) for key, version in held.versions.items()}
        except Corruption:
            return None, end  # others can tell
        return own, held.reached

    # what others hold

    def _hear(self, asked: _Asked, parts: list[ScanPart], now: Instant) -> Flow[Instant]:
        """Ask others, until all is known; returns when that is. Raises Unavailable, ReadTimeout."""
        share = _FIRST_SHARE
        while questions := [(part, node) for part in parts for node in part.to_ask()]:
            left = asked.deadline - now.mono
            if left <= 0:
                raise ReadTimeout(min(len(part.heard) for part in parts), asked.required)
            asking = tuple((node, part.question(left)) for part, node in questions)
            resumed = yield Ask(asking, share * left)
            now, share = resumed.now, 1.0
            for (part, node), outcome in zip(questions, resumed.outcomes, strict=True):
                part.on_outcome(node, outcome)
        return now

    def _unite(self, asked: _Asked, page: _Page, parts: list[ScanPart]) -> tuple[bytes, bool]:
        """Add what is known to a page; where the rest begins (empty: nowhere), and whether more fits in."""
        for part in parts:
            for key, version in part.united(self._replica.combine):
                if not page.add(key, version):
                    return key, False
            if part.reached != part.end:
                return part.reached, False
        return (b"", False) if part.end == asked.until else (part.end, not page.full)


class _Page:
    """The keys of a page, and room for more."""

    def __init__(self, asked: _Asked) -> None:
        self.keys: list[ScannedKey] = []
        self._limit = asked.limit
        self._values = asked.scan.values
        self._wall = asked.now.wall
        self._room = _PAGE_BYTES

    @property
    def full(self) -> bool:
        """Whether it has as many keys as it may."""
        return len(self.keys) >= self._limit

    def add(self, internal: InternalKey, version: Version) -> bool:
        """Add a key if it has a value; whether there was room for it."""
        values = shown(version, self._wall)
        if not values:
            return True
        if self.full:
            return False
        _, _, key = split_data_key(internal)
        if not self._values:
            self.keys.append(ScannedKey(key))
            return True
        size = sum([len(value.value) for value in values])
        if size > _PAGE_BYTES:
            self.keys.append(ScannedKey(key, large=True))
            return True
        if size > self._room:
            return False
        self._room -= size
        self.keys.append(ScannedKey(key, values))
        return True
