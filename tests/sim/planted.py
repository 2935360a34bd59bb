"""Defects that broke other databases, planted one at a time: seeds are run until one fails (`make planted`).

docs/testing.md names them all, with the seeds that found them. `--defect NAME` (may be repeated) chooses.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial

import pytest

from kvstore.errors import Corruption, KVError, Overloaded, StorageFull
from kvstore.lsm import Engine
from kvstore.lsm.sstable import Table
from kvstore.node.transit import Transit
from kvstore.protocol.messages import RangeDifference, TreeHashes
from kvstore.quorum.actors import Actors
from kvstore.quorum.background.anti_entropy import AntiEntropy
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.background.quarantine import Quarantine, _Part
from kvstore.quorum.background.reap import Reaper
from kvstore.quorum.background.replay import DeliveryOperation
from kvstore.quorum.coordinator import Coordinator
from kvstore.quorum.durability import Durability
from kvstore.quorum.forward import ForwardOperation
from kvstore.quorum.hints import Hints
from kvstore.quorum.operations import Operations
from kvstore.quorum.read import ReadOperation
from kvstore.quorum.replica import Changes, Replica
from kvstore.quorum.write import WriteOperation
from kvstore.sim.host import Host
from kvstore.sim.run import Plan, Report, try_plan
from kvstore.versions import CausalContext, Dot
from kvstore.wire.queue import Batches

Plant = Callable[[pytest.MonkeyPatch], None]


def ack_before_fsync(patch: pytest.MonkeyPatch) -> None:
    """BUGS 15, etcd#14370."""
    patch.setattr(Durability, "after", lambda self, lsn, action: action())


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

    def reply_at_once(self: ReadOperation) -> None:
        evaluate(self)
        if self.respond is not None and len(self.answers) >= self.request.required:
            result = b""
            for version in self.answers.values():
                result = self.core.replica.combine(self.request.key, result, version)
            self._reply(result)

    patch.setattr(ReadOperation, "_evaluate", reply_at_once)


def a_put_returns_a_context_that_covers_unseen_siblings(patch: pytest.MonkeyPatch) -> None:
    from kvstore.protocol.messages import Stored

    patch.setattr(
        Coordinator,
        "_stored",
        lambda self, request, version, _: Stored(self.context_keys.sign(version.context, request.key), 1),
    )


def a_write_overwrites_what_it_did_not_see(patch: pytest.MonkeyPatch) -> None:
    """BUGS 1: what last-write-wins does."""
    from kvstore.quorum import coordinator
    from kvstore.versions import Sibling, Version, join, write

    def overwrite(current: Version, seen: CausalContext, sibling: Sibling) -> Version:
        return write(current, join(seen, current.context), sibling)

    patch.setattr(coordinator, "write", overwrite)


def frames_of_peers_not_checked(patch: pytest.MonkeyPatch) -> None:
    """Found in this project: one bad value in a well formed frame stopped a cluster for good."""
    from kvstore.node.frame_check import FrameCheck

    patch.setattr(FrameCheck, "check", lambda self, messages: None)


def a_leaf_not_updated_by_replica_writes(patch: pytest.MonkeyPatch) -> None:
    """BUGS 18: the tree says equal, or different, and is wrong."""

    def replace_all(self: Replica, changes: Changes) -> int:
        return self.write([(key, new) for key, (_, new) in changes.items()])

    patch.setattr(Replica, "replace_all", replace_all)


def a_leaf_not_updated_by_the_coordinator(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        Replica, "replace", lambda self, key, old, new, others=(): self.write([(key, new), *others])
    )


def an_old_hash_left_in_its_leaf(patch: pytest.MonkeyPatch) -> None:
    update = Trees.update
    patch.setattr(Trees, "update", lambda self, key, old, new: update(self, key, b"", new))


def reaping_by_timer_alone(patch: pytest.MonkeyPatch) -> None:
    """BUGS 11: every replica forgets its tombstones by itself when they are old enough."""
    patch.setattr(Reaper, "_everyone", lambda self: ())
    patch.setattr(Reaper, "_is_mine", lambda self, key: self._core.name in self._core.primaries(key))


def reads_of_a_session_like_any_other(patch: pytest.MonkeyPatch) -> None:
    """BUGS 6, where R + W is not above N."""
    patch.setattr(ReadOperation, "_has_seen", lambda self, result: True)


def hint_deleted_before_its_ack(patch: pytest.MonkeyPatch) -> None:
    """BUGS 10: what the network then loses is lost."""
    page = Hints.page

    def forget(self: Hints, target: str, after: bytes, count: int, size: int) -> list[tuple[bytes, bytes]]:
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
            return read(self, key)
        except Corruption:
            return b""

    patch.setattr(Replica, "read", nothing_there)


def fallbacks_counted_in_strict_mode(patch: pytest.MonkeyPatch) -> None:
    """BUGS 14: W acks, but not of W primaries."""

    def on_write_ack(self: WriteOperation, node: str) -> None:
        self.awaiting.pop(node, None)
        self.acked.add(node)
        self._advance()

    patch.setattr(WriteOperation, "on_write_ack", on_write_ack)
    patch.setattr(WriteOperation, "_counts", lambda self, node: True)


def fence_lifted_after_one_answer(patch: pytest.MonkeyPatch) -> None:
    """The one that answers may be the one that missed the write."""
    patch.setattr(_Part, "complete", property(lambda self: not self.peers or self.waiting < self.peers))


def fetched_versions_written_at_once(patch: pytest.MonkeyPatch) -> None:
    """As above, but the fence still stands: only what has been fetched answers too soon."""

    def write_at_once(self: Quarantine, _: _Part, key: bytes, version: bytes) -> bytes:
        core = self._core
        try:
            core.store(key, version, "")
        except Corruption:
            core.replica.write([(key, version)])
        return version

    patch.setattr(Quarantine, "_fetched", write_at_once)


def actors_not_renewed_after_a_refetch(patch: pytest.MonkeyPatch) -> None:
    """BUGS 2: dots that only the damaged block knew are minted over."""
    patch.setattr(Coordinator, "renew_actors", lambda self: None)


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


def the_clocks_of_others_believed(patch: pytest.MonkeyPatch) -> None:
    """As if all machines had been started at once: what others ask seems to be late, or not."""
    patch.setattr(Transit, "delay", lambda self, sent, now: max(0.0, now - sent))


def acknowledged_by_too_few_disks(patch: pytest.MonkeyPatch) -> None:
    """One replica less than W."""
    advance = WriteOperation._advance

    def advance_early(self: WriteOperation) -> None:
        if self.respond is not None and self.local and len(self.acked) + 1 >= self.request.w:
            self.answer(self._stored())
        advance(self)

    patch.setattr(WriteOperation, "_advance", advance_early)


def shown_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    """A read answers from memory, and a power failure makes it a lie."""
    patch.setattr(Replica, "unsynced", lambda self, key: 0)


def exchanged_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    """As above, by anti-entropy: the asker believes that this replica has it."""

    def reply(self: AntiEntropy, to: str, answer: TreeHashes | RangeDifference) -> None:
        self._core.transport.send(to, answer)

    patch.setattr(AntiEntropy, "_reply", reply)


def fence_lifted_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    """What was refetched is in memory alone, and what lies beneath in older tables comes to light."""
    on_timer = Quarantine.on_timer

    def at_once(self: Quarantine, now: float) -> None:
        with pytest.MonkeyPatch.context() as within:
            within.setattr(Durability, "after", lambda self, lsn, action: action())
            within.setattr(Durability, "soon", lambda self, lsn: None)
            on_timer(self, now)

    patch.setattr(Quarantine, "on_timer", at_once)


def hint_deleted_when_it_is_refused(patch: pytest.MonkeyPatch) -> None:
    """BUGS 10: an answer is taken for an acknowledgement."""

    def on_refusal(self: DeliveryOperation, node: str, _: KVError) -> None:
        self.on_write_ack(node)

    patch.setattr(DeliveryOperation, "on_refusal", on_refusal)


def hint_deleted_although_it_has_changed(patch: pytest.MonkeyPatch) -> None:
    """The target has what was sent, and not what was added since."""

    def delivered(self: Hints, target: str, key: bytes, _: bytes) -> bool:
        if not (kept := self.read(target, key)):
            return False
        self._delete(target, key, kept)
        self._counters.hints_delivered += 1
        return True

    patch.setattr(Hints, "delivered", delivered)


def a_write_forwarded_again(patch: pytest.MonkeyPatch) -> None:
    """The first coordinator may have carried it out: applied twice, it leaves siblings."""

    def on_gone(self: ForwardOperation, node: str) -> None:
        if node == self.node and self.left:
            self.send()

    patch.setattr(ForwardOperation, "on_gone", on_gone)


def what_comes_in_replaces_what_is_stored(patch: pytest.MonkeyPatch) -> None:
    combine = Replica.combine

    def replaced(self: Replica, key: bytes, a: bytes, b: bytes, to_be_stored: bool = False) -> bytes:
        return b if to_be_stored else combine(self, key, a, b)

    patch.setattr(Replica, "combine", replaced)


def memory_of_operations_not_given_back(patch: pytest.MonkeyPatch) -> None:
    """A node that counts up to its bound and refuses everything from then on."""
    patch.setattr(Operations, "forget", lambda self, number: self.by_number.pop(number, None))


def a_request_counted_twice_as_done(patch: pytest.MonkeyPatch) -> None:
    settle = WriteOperation._settle

    def twice(self: WriteOperation) -> None:
        settle(self)
        settle(self)

    patch.setattr(WriteOperation, "_settle", twice)


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
