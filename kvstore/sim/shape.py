"""What kind of cluster a seed runs: how many nodes and replicas, which buckets, clients, keys, options."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from kvstore.config import KIB, AntiEntropySettings, BucketSettings, Conflict, QuorumMode, QuorumSettings
from kvstore.lsm import Compaction, Options
from kvstore.node.settings import NodeSettings
from kvstore.sim.cluster import LIMITS, REAP_AGE
from kvstore.sim.history import SESSIONS
from kvstore.sim.shell import OPTIONS
from kvstore.versions import BucketName, UserKey

EXPIRING = "expiring"
TTL = 4
"""Seconds, in the bucket whose values expire."""
STRICT = BucketName("strict")
ONE = "one"
"""Its writes are acknowledged when they are on one disk."""

_ANSWER_BYTES = 4 * KIB
_NODES = (1, 2, 3, 3, 3, 3, 3, 5, 5, 5, 5, 9)
_REPLICAS = (1, 2, 3, 3, 3, 3, 3, 5)
_CLIENTS = (2, 6, 6, 6, 16)
_KEYS = (1, 3, 3, 3, 8)
_ENGINES = (
    OPTIONS,
    Options(
        memtable_bytes=6 * 1024,
        block_bytes=256,
        cache_bytes=16 * 1024,
        table_bytes=4 * 1024,
        compaction=Compaction.LEVELED,
        tier_tables=2,
        level_bytes=8 * 1024,
        level_ratio=2,
    ),
    Options(memtable_bytes=64 * 1024, block_bytes=4096, cache_bytes=1, manifest_bytes=512),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Keys are counted by bucket."""

    nodes: int
    replicas: int
    buckets: tuple[BucketSettings, ...]
    clients: int
    keys: int
    options: Options
    settings: NodeSettings

    @property
    def copied(self) -> bool:
        """Whether each key has several replicas, so that one disk may be lost."""
        return all(bucket.n > 1 for bucket in self.buckets)

    def places(self) -> Iterator[tuple[BucketSettings, UserKey]]:
        """Bucket and key of everything that clients use."""
        for bucket in self.buckets:
            for i in range(self.keys):
                yield bucket, UserKey(b"k%d" % i)


def nodes_of(seed: int) -> int:
    """How many nodes the cluster of a seed has, when nobody says so."""
    return random.Random(f"{seed}/nodes").choice(_NODES)


def shape_of(seed: int, nodes: int) -> Shape:
    """What a seed runs on so many nodes."""
    rng = random.Random(f"{seed}/shape")
    replicas = min(rng.choice(_REPLICAS), nodes)
    others = [n for n in (2, 3, 5) if n <= nodes] or [1]
    return Shape(
        nodes,
        replicas,
        _buckets(replicas, replicas if replicas == 1 else rng.choice(others)),
        rng.choice(_CLIENTS),
        rng.choice(_KEYS),
        rng.choice(_ENGINES),
        _settings(random.Random(f"{seed}/settings")),
    )


def _buckets(n: int, another: int) -> tuple[BucketSettings, ...]:
    """One of each kind; R is 2 at least in those that promise something and have two replicas.

    An emptied disk answers that there is nothing (kvstore.sim.damage).
    """
    r = n // 2 + 1
    majority = another // 2 + 1
    return (
        BucketSettings(STRICT, n=n, r=r, w=r),
        BucketSettings("all", n=n, r=n, w=n),
        BucketSettings(ONE, n=n, r=n, w=1),
        BucketSettings("sloppy", n=n, r=r, w=r, quorum=QuorumMode.SLOPPY),
        BucketSettings("lww", n=n, r=r, w=r, conflict=Conflict.LWW),
        BucketSettings(SESSIONS, n=n, r=1, w=1, quorum=QuorumMode.SLOPPY),
        BucketSettings(EXPIRING, n=n, r=r, w=r, ttl=TTL),
        BucketSettings("another", n=another, r=majority, w=majority),
    )


def _settings(rng: random.Random) -> NodeSettings:
    """In some runs anti-entropy works all the time, or instead of hints; in others only when asked.

    So neither hides what the other has to do. In some runs hints expire while their targets are away.
    """
    interval, hints = rng.choice(((1.0, 1000), (10.0, 1000), (float("inf"), 1000), (1.0, 0)))
    age = rng.choice((QuorumSettings().hint_age, 4.0))
    return NodeSettings(
        quorum=QuorumSettings(hint_count=hints, hint_age=age),
        anti_entropy=AntiEntropySettings(
            interval, settle=0.5, reap_interval=1.0, reap_age=REAP_AGE, answer_bytes=_ANSWER_BYTES
        ),
        limits=LIMITS,
    )
