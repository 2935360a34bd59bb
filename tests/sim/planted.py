"""Defects that broke other databases, planted one at a time: seeds are run until one fails (`make planted`).

docs/testing.md names them all, with the seeds that found them. `--defect NAME` (may be repeated) chooses.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pytest

from kvstore.client.core import attempts, retry
from kvstore.errors import Corruption, KVError, Outcome, Overloaded, StorageFull
from kvstore.lsm import Engine, GroupCommit, JobQueue, Sync
from kvstore.lsm.quarantine import Fence
from kvstore.lsm.table import Table
from kvstore.node import router
from kvstore.node.questions import Questions
from kvstore.node.replica_service import ReplicaService
from kvstore.node.transit import Transit
from kvstore.protocol.client import ClientRequest, Stored
from kvstore.protocol.instant import Instant
from kvstore.quorum import mint as minting
from kvstore.quorum.actors import Actors
from kvstore.quorum.admission import Admission
from kvstore.quorum.background.answering import Answering
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.background.quarantine import Quarantine, _Part
from kvstore.quorum.background.reap import Reaper, _Batch
from kvstore.quorum.background.reap_rounds import ReapRounds
from kvstore.quorum.background.replay import HintReplay, _Delivery
from kvstore.quorum.flow import Ask, Flow, Resumed
from kvstore.quorum.forward import ForwardOperation
from kvstore.quorum.held_outputs import HeldOutputs
from kvstore.quorum.hints import Hints
from kvstore.quorum.local import LocalCopy
from kvstore.quorum.mint import Mint, Minted
from kvstore.quorum.outputs import ACK
from kvstore.quorum.read import ReadOperation
from kvstore.quorum.replica import Replica
from kvstore.quorum.request import Request
from kvstore.quorum.rpc import Answer, Rpc, Waiting
from kvstore.quorum.votes import Quorum
from kvstore.quorum.write import WriteEvent, WriteOperation, Writes, WriteState
from kvstore.sim.host import Host
from kvstore.sim.run import Plan, Report, try_plan
from kvstore.store.worker_driver import WorkerDriver
from kvstore.versions import (
    NO_VERSION,
    CausalContext,
    Dot,
    DottedContext,
    EncodedVersion,
    InternalKey,
    Sibling,
    Version,
    join,
    write,
)
from kvstore.wire.queue import Batches

Plant = Callable[[pytest.MonkeyPatch], None]
T = TypeVar("T")
_Confirmed = tuple[Instant, _Batch]


def ack_before_fsync(patch: pytest.MonkeyPatch) -> None:
    """BUGS 15, etcd#14370."""
    patch.setattr(HeldOutputs, "after", lambda self, lsn, output, now: self._release(output, now))


def actor_not_renewed_after_a_crash(patch: pytest.MonkeyPatch) -> None:
    """BUGS 2, riak_kv#679."""
    take = Actors._take
    patch.setattr(Actors, "_take", lambda self, partition, _: take(self, partition, 7))


def dots_reused_after_a_wipe(patch: pytest.MonkeyPatch) -> None:
    """BUGS 2: counters that survive every crash, but not the loss of the disk."""
    counters: Counter[str] = Counter()
    wipe = Host.wipe

    def mint(self: Actors, partition: int, _known: CausalContext = ()) -> Dot:
        counters[self._node] += 1
        return Dot(f"{self._node}.{partition}", counters[self._node])

    def forget(self: Host) -> None:
        counters[self.name] = 0
        wipe(self)

    patch.setattr(Actors, "mint", mint)
    patch.setattr(Host, "wipe", forget)


def repair_without_waiting(patch: pytest.MonkeyPatch) -> None:
    """BUGS 6: reads that go back in time."""
    evaluate = ReadOperation._evaluate

    def reply_at_once(self: ReadOperation, now: Instant) -> None:
        evaluate(self, now)
        if self._waited_for and len(self.answers) >= self.request.r:
            result = NO_VERSION
            for version in self.answers.values():
                result = self._common.local.replica.combine(self.request.key, result, version)
            self._reply(result, now)

    patch.setattr(ReadOperation, "_evaluate", reply_at_once)


def a_put_returns_a_context_that_covers_unseen_siblings(patch: pytest.MonkeyPatch) -> None:
    def stored(self: Writes, request: Request, minted: Minted, _seen: DottedContext) -> Stored:
        return Stored(self._context_keys.sign(minted.version.context, request.key), 1)

    patch.setattr(Writes, "_stored", stored)


def a_write_overwrites_what_it_did_not_see(patch: pytest.MonkeyPatch) -> None:
    """BUGS 1: what last-write-wins does."""

    def overwrite(
        current: Version, seen: CausalContext, sibling: Sibling, _dots: Container[Dot] = ()
    ) -> Version:
        return write(current, join(seen, current.context), sibling)

    patch.setattr(minting, "write", overwrite)


def frames_of_peers_not_checked(patch: pytest.MonkeyPatch) -> None:
    """Found in this project: one bad value in a well formed frame stopped a cluster for good."""
    from kvstore.node.frame_check import FrameCheck

    patch.setattr(FrameCheck, "check", lambda self, messages: None)


def a_leaf_not_updated_by_replica_writes(patch: pytest.MonkeyPatch) -> None:
    """BUGS 18: the tree says equal, or different, and is wrong."""

    patch.setattr(ReplicaService, "write", _without_trees(ReplicaService.write))


def a_leaf_not_updated_by_the_coordinator(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LocalCopy, "append", _without_trees(LocalCopy.append))


def _without_trees(write: Callable[..., Any]) -> Callable[..., Any]:
    """What writes versions, but for the Merkle trees."""

    def untold(self: Any, *arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as within:
            within.setattr(Replica, "_update", lambda self, key, old, new: None, raising=False)
            return write(self, *arguments)

    return untold


def an_old_hash_left_in_its_leaf(patch: pytest.MonkeyPatch) -> None:
    update = Trees.update
    patch.setattr(Trees, "update", lambda self, key, old, new: update(self, key, NO_VERSION, new))


def reaping_by_timer_alone(patch: pytest.MonkeyPatch) -> None:
    """BUGS 11: every replica forgets its tombstones by itself when they are old enough."""
    ask = Reaper._ask
    patch.setattr(Reaper, "_ask", lambda self, nodes, candidates, **how: ask(self, (), candidates, **how))
    patch.setattr(Reaper, "_is_mine", lambda self, key: self._ownership.are_here(key))


def reaping_unconfirmed(patch: pytest.MonkeyPatch) -> None:
    """The first primary has all of them forget, and asks nobody before; and they do not remember that."""
    ask = Reaper._ask

    def told(
        self: Reaper, nodes: Sequence[str], candidates: _Batch, commit: bool, again: bool = False
    ) -> Flow[_Confirmed]:
        return ask(self, nodes if commit else (), candidates, commit, again)

    patch.setattr(Reaper, "_ask", told)
    patch.setattr(ReapRounds, "may_commit", lambda self, sender, candidate, now: True)


def reads_of_a_session_like_any_other(patch: pytest.MonkeyPatch) -> None:
    """BUGS 6, where R + W is not above N."""
    from kvstore.quorum import read

    patch.setattr(read, "has_seen", lambda call, seen, result: True)


def hint_deleted_before_its_ack(patch: pytest.MonkeyPatch) -> None:
    """BUGS 10: what the network then loses is lost."""
    page = Hints.page

    def forget(
        self: Hints, target: str, after: InternalKey, count: int, size: int
    ) -> list[tuple[InternalKey, EncodedVersion]]:
        found = page(self, target, after, count, size)
        for key, version in found:
            with suppress(StorageFull, Overloaded):
                self.delivered(target, key, version)
        return found

    patch.setattr(Hints, "page", forget)


def corrupt_read_as_not_found(patch: pytest.MonkeyPatch) -> None:
    """BUGS, durability: the origin of riak_kv#679."""
    read = Replica.read

    def nothing_there(self: Replica, key: bytes) -> bytes:
        try:
            return read(self, InternalKey(key))
        except Corruption:
            return b""

    patch.setattr(Replica, "read", nothing_there)


def fallbacks_counted_in_strict_mode(patch: pytest.MonkeyPatch) -> None:
    """BUGS 14: W acks, but not of W primaries."""

    ask = WriteOperation._ask

    def ask_a_voter(self: WriteOperation, node: str, hint_for: str) -> None:
        (members, needed), own = self.quorums
        self.quorums = (Quorum(members | {node}, needed), own)
        ask(self, node, hint_for)

    patch.setattr(WriteOperation, "_ask", ask_a_voter)


def fence_lifted_after_one_answer(patch: pytest.MonkeyPatch) -> None:
    """The one that answers may be the one that missed the write."""
    patch.setattr(_Part, "complete", property(lambda self: not self.peers or self.waiting < self.peers))


def fetched_versions_written_at_once(patch: pytest.MonkeyPatch) -> None:
    """As above, but the fence still stands: only what has been fetched answers too soon."""

    def write_at_once(self: Quarantine, _: _Part, key: bytes, version: bytes) -> bytes:
        try:
            self._local.store(InternalKey(key), EncodedVersion(version))
        except Corruption:
            self._local.replica.write([(key, version)])
        return version

    patch.setattr(Quarantine, "_fetched", write_at_once)


def actors_not_renewed_after_a_refetch(patch: pytest.MonkeyPatch) -> None:
    """BUGS 2: dots that only the damaged block knew are minted over."""
    patch.setattr(Mint, "renew_actors", lambda self: None)


def compaction_drops_damaged_blocks(patch: pytest.MonkeyPatch) -> None:
    """What lies beneath comes to light, or nothing does."""
    chunks = Table.chunks
    patch.setattr(
        Table,
        "chunks",
        lambda self, start, end, reverse=False, around=False: chunks(self, start, end, reverse, True),
    )


def frames_as_large_as_the_queue(patch: pytest.MonkeyPatch) -> None:
    """Too large for their receiver, which breaks the link off."""
    init = Batches.__init__
    patch.setattr(Batches, "__init__", lambda self, _frame=0: init(self, 1 << 40))


def a_failed_job_not_repeated(patch: pytest.MonkeyPatch) -> None:
    """A worker died: its memtable is never flushed, its tables never compacted."""
    patch.setattr(Engine, "job_failed", lambda self, job: None)


def a_job_put_off_for_ever(patch: pytest.MonkeyPatch) -> None:
    """The queue of jobs that nodes run as well offers none again."""
    patch.setattr(JobQueue, "offer_again", lambda self, now: None)


def a_stalled_worker_not_given_up(patch: pytest.MonkeyPatch) -> None:
    """Its job is neither done nor done by another."""
    patch.setattr(WorkerDriver, "silent", lambda self, now: None)


def durable_when_its_sync_begins(patch: pytest.MonkeyPatch) -> None:
    """The group commit that nodes run as well tells of a sync that has not ended."""
    start = GroupCommit._start

    def early(self: GroupCommit, sync: Sync | None) -> None:
        if sync is not None:
            self._shell.on_durable(sync.lsn)
        start(self, sync)

    patch.setattr(GroupCommit, "_start", early)


def a_full_disk_not_tried_again(patch: pytest.MonkeyPatch) -> None:
    """Writes are refused for ever once a sync has found no space."""
    begin = GroupCommit.begin

    def once(self: GroupCommit) -> None:
        if not self._full:
            begin(self)

    patch.setattr(GroupCommit, "begin", once)


def the_clocks_of_others_believed(patch: pytest.MonkeyPatch) -> None:
    """As if all machines had been started at once: what others ask seems to be late, or not."""
    patch.setattr(Transit, "delay", lambda self, sent, now: max(0.0, now - sent))


def acknowledged_by_too_few_disks(patch: pytest.MonkeyPatch) -> None:
    """One replica less than W."""
    on_answer = WriteOperation.on_answer

    def acknowledge_early(self: WriteOperation, node: str, answer: Answer, now: Instant) -> None:
        self.acked.add(node)
        durable_here = self._common.placements.name in self.acked
        enough = len(self._voted()) + 1 >= self.request.w
        if self.state is WriteState.WAITING and durable_here and enough:
            self.move(WriteEvent.ACKNOWLEDGED)
            self.answer(self._stored(), now)
        on_answer(self, node, answer, now)

    patch.setattr(WriteOperation, "on_answer", acknowledge_early)


def shown_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    """A read answers from memory, and a power failure makes it a lie."""
    patch.setattr(Replica, "unsynced", lambda self, key: 0)


def exchanged_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    """As above, by anti-entropy: the asker believes that this replica has it."""

    class AtOnce(Questions):
        def __init__(self, question: type, answering: Answering, *others: Any) -> None:
            super().__init__(question, answering._replace(durable=False), *others)

    patch.setattr(router, "Questions", AtOnce)


def fence_lifted_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    """What was refetched is in memory alone, and what lies beneath in older tables comes to light."""
    lift = Quarantine._lift

    def at_once(self: Quarantine, fence: Fence) -> Flow[None]:
        flow = lift(self, fence)
        next(flow)  # it waits for the disk
        resumed = yield Ask((), 0.0)
        yield from _resumed(flow, resumed)

    patch.setattr(Quarantine, "_lift", at_once)


def hint_deleted_when_it_is_refused(patch: pytest.MonkeyPatch) -> None:
    """BUGS 10: an answer is taken for an acknowledgement."""
    asked = HintReplay._asked

    def any_answer(self: HintReplay, page: list[_Delivery]) -> Flow[tuple[Instant, list[bool]]]:
        flow = asked(self, page)
        now, outcomes = yield next(flow)
        taken = tuple(ACK if isinstance(outcome, KVError) else outcome for outcome in outcomes)
        return (yield from _resumed(flow, Resumed(now, taken)))

    patch.setattr(HintReplay, "_asked", any_answer)


def _resumed(flow: Flow[T], resumed: Resumed) -> Flow[T]:
    """The rest of a flow."""
    try:
        while True:
            resumed = yield flow.send(resumed)
    except StopIteration as ended:
        result: T = ended.value
        return result


def hint_deleted_although_it_has_changed(patch: pytest.MonkeyPatch) -> None:
    """The target has what was sent, and not what was added since."""

    def delivered(self: Hints, target: str, key: bytes, _: bytes) -> bool:
        if not (kept := self.read(target, InternalKey(key))):
            return False
        self._delete(target, InternalKey(key), kept)
        self._counters.hints_delivered += 1
        return True

    patch.setattr(Hints, "delivered", delivered)


def a_write_forwarded_again(patch: pytest.MonkeyPatch) -> None:
    """The first coordinator may have carried it out: applied twice, it leaves siblings."""

    def on_gone(self: ForwardOperation, node: str, now: Instant) -> None:
        if node == self.node and self.left:
            self._pass_on(now)

    patch.setattr(ForwardOperation, "on_gone", on_gone)


def what_comes_in_replaces_what_is_stored(patch: pytest.MonkeyPatch) -> None:
    combine = Replica.combine

    def replaced(
        self: Replica,
        key: InternalKey,
        a: EncodedVersion,
        b: EncodedVersion,
        to_be_stored: bool = False,
        wall: int = 0,
    ) -> EncodedVersion:
        return b if to_be_stored else combine(self, key, a, b, wall=wall)

    patch.setattr(Replica, "combine", replaced)


def memory_of_operations_not_given_back(patch: pytest.MonkeyPatch) -> None:
    """A node that counts up to its bound and refuses everything from then on."""
    forget = Rpc.forget

    def kept(self: Rpc, waiting: Waiting) -> None:
        waiting.size = 0
        forget(self, waiting)

    patch.setattr(Rpc, "forget", kept)


def a_request_counted_twice_as_done(patch: pytest.MonkeyPatch) -> None:
    settled = Admission.settled

    def twice(self: Admission, seconds: float | None = None) -> None:
        settled(self, seconds)
        settled(self, seconds)

    patch.setattr(Admission, "settled", twice)


def a_write_repeated_after_an_unknown_outcome(patch: pytest.MonkeyPatch) -> None:
    """The client's rule of what to try again: a write that may have been applied is applied twice."""

    def may_retry(request: ClientRequest, error: KVError, attempt: int, attempts: int) -> bool:
        return retry.may_retry(request, error, attempt, attempts) or (
            error.outcome is Outcome.UNKNOWN and attempt < retry.ATTEMPTS
        )

    patch.setattr(attempts, "may_retry", may_retry)


REQUIRED: tuple[Plant, ...] = (
    ack_before_fsync,
    dots_reused_after_a_wipe,
    repair_without_waiting,
    hint_deleted_before_its_ack,
    corrupt_read_as_not_found,
    reaping_by_timer_alone,
    fallbacks_counted_in_strict_mode,
    a_leaf_not_updated_by_replica_writes,
    a_leaf_not_updated_by_the_coordinator,
    an_old_hash_left_in_its_leaf,
)
OTHERS: tuple[Plant, ...] = (
    actor_not_renewed_after_a_crash,
    a_put_returns_a_context_that_covers_unseen_siblings,
    a_write_overwrites_what_it_did_not_see,
    reads_of_a_session_like_any_other,
    fence_lifted_after_one_answer,
    fetched_versions_written_at_once,
    actors_not_renewed_after_a_refetch,
    compaction_drops_damaged_blocks,
    frames_of_peers_not_checked,
    frames_as_large_as_the_queue,
    a_failed_job_not_repeated,
    a_job_put_off_for_ever,
    a_stalled_worker_not_given_up,
    durable_when_its_sync_begins,
    a_full_disk_not_tried_again,
    the_clocks_of_others_believed,
    acknowledged_by_too_few_disks,
    shown_before_it_is_durable,
    exchanged_before_it_is_durable,
    fence_lifted_before_it_is_durable,
    hint_deleted_when_it_is_refused,
    hint_deleted_although_it_has_changed,
    a_write_forwarded_again,
    what_comes_in_replaces_what_is_stored,
    memory_of_operations_not_given_back,
    a_request_counted_twice_as_done,
    a_write_repeated_after_an_unknown_outcome,
)


def first_violation(plant: Plant, first: int = 1, last: int = 500) -> tuple[int, str] | None:
    """The first seed that fails with the defect planted, and what it violates."""
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        for seed in range(first, last + 1):
            outcome = try_plan(Plan(seed, 3 if seed % 2 else 5))
            if not isinstance(outcome, Report):
                return seed, outcome
    return None


def _timed(plant: Plant, last: int) -> tuple[tuple[int, str] | None, float]:
    began = time.process_time()
    return first_violation(plant, 1, last), time.process_time() - began


def main() -> int:
    """Search for each defect; how many were not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.planted", description=__doc__)
    parser.add_argument("--defect", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=500)
    given = parser.parse_args()
    plants = [p for p in (*REQUIRED, *OTHERS) if not given.defect or p.__name__ in given.defect]
    missed = 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        found = pool.map(partial(_timed, last=given.seeds), plants)
        for plant, (violation, seconds) in zip(plants, found, strict=True):
            name = plant.__name__.replace("_", " ")
            if violation is None:
                missed += 1
                print(f"{name}: NOT FOUND by {given.seeds} seeds, {seconds:.0f} s", flush=True)
            else:
                seed, what = violation
                print(f"{name}: seed {seed}, {seconds:.0f} s: {what.strip().splitlines()[-1]}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main())
