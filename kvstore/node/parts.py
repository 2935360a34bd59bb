"""The machines that make up a node, each given what it needs of the others."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kvstore.config import AntiEntropySettings
from kvstore.hlc import HybridClock
from kvstore.lsm import Engine
from kvstore.node.coordinator import Coordinator
from kvstore.node.outbox import Outbox
from kvstore.node.scan import Step
from kvstore.node.scan_answers import ScanAnswers
from kvstore.node.scans import Scans
from kvstore.node.settings import NodeSettings
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import WriteAck
from kvstore.quorum.actors import Actors
from kvstore.quorum.admission import Admission
from kvstore.quorum.background.answering import AnsweredQuestions
from kvstore.quorum.background.answers import Answers
from kvstore.quorum.background.anti_entropy import AntiEntropy
from kvstore.quorum.background.cursors import CURSORS, CURSORS_END, Cursors
from kvstore.quorum.background.exchange import Comparison
from kvstore.quorum.background.hint_expiry import HintExpiry
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.background.pacing import Pacing
from kvstore.quorum.background.proofs import Proofs
from kvstore.quorum.background.quarantine import Quarantine
from kvstore.quorum.background.reap import Reaper
from kvstore.quorum.background.replay import HintReplay
from kvstore.quorum.background.transfers import Transfers
from kvstore.quorum.background.tree_building import TreeBuilding
from kvstore.quorum.context_keys import ContextKeys
from kvstore.quorum.counters import Counters
from kvstore.quorum.deadlines import Deadlines
from kvstore.quorum.delete import Deletes
from kvstore.quorum.flow import Flows
from kvstore.quorum.forward import Forwards
from kvstore.quorum.get import Gets
from kvstore.quorum.guard import Guard
from kvstore.quorum.hedging import Hedging
from kvstore.quorum.held_outputs import HeldOutputs
from kvstore.quorum.hints import Hints
from kvstore.quorum.local import LocalCopy
from kvstore.quorum.mint import Mint
from kvstore.quorum.outputs import Output, OwnAcks, Send
from kvstore.quorum.overwrite import Overwrites
from kvstore.quorum.placement import Placements
from kvstore.quorum.put import Puts
from kvstore.quorum.read import Reads
from kvstore.quorum.replica import Replica
from kvstore.quorum.rpc import Rpc
from kvstore.quorum.write import Writes


@dataclass(frozen=True, slots=True)
class Foundation:
    """What all of them stand on: this node's own data, its questions to others, time and disk."""

    counters: Counters
    guard: Guard
    placements: Placements
    trees: Trees
    local: LocalCopy
    context_keys: ContextKeys
    mint: Mint
    admission: Admission
    deadlines: Deadlines
    rpc: Rpc
    durability: HeldOutputs

    def on_durable(self, lsn: int, now: Instant) -> None:
        """All writes up to `lsn` are on the disk."""
        self.counters.syncs += 1
        self.local.replica.on_durable(lsn)
        self.durability.on_durable(lsn, now)


@dataclass(frozen=True, slots=True)
class Background:
    """What runs by itself."""

    flows: Flows
    anti_entropy: AntiEntropy
    proofs: Proofs
    quarantine: Quarantine
    tree_building: TreeBuilding
    replay: HintReplay
    expiry: HintExpiry
    reaper: Reaper
    transfers: Transfers
    questions: AnsweredQuestions
    """How questions of other nodes are answered."""

    def start(self, now: Instant) -> None:
        """Begin, each at its time."""
        self.tree_building.start(now)
        self.anti_entropy.start(now)
        self.replay.start(now)
        self.expiry.start(now)
        self.reaper.start(now)
        self.transfers.start(now)


def foundation(
    placements: Placements, engine: Engine, outbox: Outbox, rng: random.Random, settings: NodeSettings
) -> Foundation:
    """Of a node whose data is in `engine`."""
    counters = Counters()
    guard = Guard(partial(_defect, counters, outbox.defect))
    trees = Trees(placements.state)
    replica = Replica(engine, placements.bucket, trees.update, counters)
    local = LocalCopy(replica, Hints(engine, replica, settings.quorum, counters))
    context_keys = ContextKeys(engine.scan_around, engine.sync, replica, placements.others)
    actors = Actors(placements.name, rng)
    clock = HybridClock(int(settings.quorum.max_clock_drift * 1000), partial(_clock_ahead, counters))
    mint = Mint(actors, clock, context_keys, placements, settings.limits)
    admission = Admission(settings.quorum, counters)
    deadlines = Deadlines(guard)
    # random, so that an ack for an operation of before a restart means nothing after it
    rpc = Rpc(rng.getrandbits(62), outbox, deadlines, admission, guard)
    release = partial(_release, placements.name, rpc)
    durability = HeldOutputs(engine, outbox.request_sync, release, guard)
    return Foundation(
        counters,
        guard,
        placements,
        trees,
        local,
        context_keys,
        mint,
        admission,
        deadlines,
        rpc,
        durability,
    )


def coordinator(base: Foundation, settings: NodeSettings) -> Coordinator:
    """The way of a client's request."""
    quorum, limits = settings.quorum, settings.limits
    hedging = Hedging(quorum.read_patience, quorum.hedge_share, quorum.hedge_burst)
    reads = Reads(base.rpc, base.local, base.placements, base.durability, hedging, base.counters, quorum)
    forwards = Forwards(base.rpc, base.placements, base.placements.alive, hedging, base.counters, quorum)
    writes = Writes(
        base.rpc,
        base.local,
        base.mint,
        base.context_keys,
        base.placements,
        base.durability,
        base.admission,
        base.counters,
        forwards,
        base.guard,
        quorum,
    )
    overwrites = Overwrites(reads, writes, base.local.read, base.mint)
    return Coordinator(
        {
            **Puts(overwrites, limits).operations,
            **Gets(reads, base.local.read, base.context_keys).operations,
            **Deletes(reads, writes, overwrites, base.local.read).operations,
        },
        writes.carry_out,
        forwards,
        base.placements,
        base.admission,
        base.rpc,
        base.counters,
        base.guard,
        quorum,
        limits,
    )


def scans(base: Foundation, flows: Flows, engine: Engine, settings: NodeSettings) -> Scans:
    """The way of a client's scan."""
    return Scans(
        flows,
        partial(Step, engine.scan),
        base.local.replica,
        base.placements,
        base.placements.alive,
        base.admission,
        base.counters,
        settings.limits,
        settings.quorum,
    )


def background(base: Foundation, engine: Engine, settings: NodeSettings) -> Background:
    """What runs by itself, and hears of what it must from the rest."""
    flows = Flows(base.placements.name, base.rpc, base.deadlines, base.durability)
    trees, local, placements, mint = base.trees, base.local, base.placements, base.mint
    durability, counters, rules = base.durability, base.counters, settings.anti_entropy
    soon = durability.soon
    pacing = Pacing(base.admission, rules)
    building = TreeBuilding(trees, engine.scan, base.deadlines, base.guard, pacing, counters, rules)
    quarantine = Quarantine(
        flows, engine, local, trees, placements, mint, durability, counters, rules.settle, building.missing
    )
    proofs = Proofs(placements, placements.alive, trees, rules)
    anti_entropy = AntiEntropy(
        flows,
        local,
        trees,
        engine.scan,
        proofs,
        quarantine,
        placements,
        placements.alive,
        soon,
        pacing,
        counters,
        rules,
    )
    replay = HintReplay(flows, local, placements, mint, durability, base.admission, counters, settings.quorum)
    expiry = HintExpiry(flows, local, placements, mint, durability, settings.quorum)
    exchanging = anti_entropy.exchanging
    reaper = Reaper(flows, local, quarantine.known, exchanging, placements, mint, soon, counters, rules)
    transfers = _transfers(base, flows, engine, pacing, rules)
    building.built = anti_entropy.built
    local.replica.on_distrust = building.distrust
    local.hints.on_dropped = anti_entropy.hint_dropped
    local.hints.on_kept = replay.on_kept
    questions = {
        **Answers(trees, engine.scan, counters, rules).questions,
        **ScanAnswers(partial(Step, engine.scan), placements.state.ring.partitions).questions,
        **reaper.questions,
    }
    return Background(
        flows, anti_entropy, proofs, quarantine, building, replay, expiry, reaper, transfers, questions
    )


def _transfers(
    base: Foundation, flows: Flows, engine: Engine, pacing: Pacing, settings: AntiEntropySettings
) -> Transfers:
    replica, placements = base.local.replica, base.placements
    return Transfers(
        flows,
        base.local,
        partial(Comparison, trees=base.trees, scan=engine.scan),
        Cursors(engine.scan_around(CURSORS, CURSORS_END), replica),
        placements.state,
        placements.alive,
        pacing,
        base.counters,
        settings,
    )


def _defect(counters: Counters, report: Callable[[Exception], None], error: Exception) -> None:
    counters.defects += 1
    report(error)


def _clock_ahead(counters: Counters) -> None:
    counters.clock_ahead += 1


def _release(name: str, rpc: Rpc, output: Output, now: Instant) -> None:
    """Carry out what has waited for the disk."""
    if isinstance(output, Send):
        rpc.send(output.to, output.message)
    elif isinstance(output, OwnAcks):
        rpc.on_answer_to_all(name, WriteAck(output.numbers), now)
    else:
        rpc.on_answer(name, output.number, output.answer, now)
