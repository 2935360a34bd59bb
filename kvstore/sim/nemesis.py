"""Faults, one after the other and at times several at once, each for a while."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from functools import partial

from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.faults import FAULTS
from kvstore.sim.faults.scene import DiskDamage, Fault, Scene
from kvstore.sim.host import Host

_TRIES = 40
_NEXT_TRY = 0.25


@dataclass(frozen=True, slots=True)
class Faults:
    """Kinds of faults that can be switched off: damage to disks, where it is fair (kvstore.sim.damage)."""

    bit_flips: bool = True
    """Bits of tables, logs and manifests flip."""
    wipes: bool = True
    """A disk is replaced by an empty one."""


class Nemesis:
    """Injects faults until told to stop; `counts` has them by kind."""

    def __init__(self, cluster: SimulatedCluster, rng: random.Random, faults: Faults | None = None) -> None:
        self._rng = rng
        self._scene = Scene(cluster, rng)
        on = kinds(faults or Faults())
        self._faults = [each for each in FAULTS if each.name in on and each.hosts <= len(cluster.hosts)]

    @property
    def counts(self) -> Counter[str]:
        """How often each kind has struck, and what became of unsynced bytes."""
        return self._scene.counts

    def start(self) -> None:
        """Begin."""
        self._scene.later(self._rng.uniform(0.2, 1.5), self._strike)

    def stop(self) -> None:
        """End every fault, start every host, and do no more harm."""
        self._scene.end()

    def _strike(self) -> None:
        fault = self._rng.choice(self._faults)
        if isinstance(fault, DiskDamage):
            self._when_fair(fault, self._scene.some_host(), _TRIES)
        else:
            self._note(fault)
            fault.strike(self._scene)
        self._scene.later(self._rng.uniform(0.3, 2.5), self._strike)

    def _when_fair(self, fault: DiskDamage, host: Host, tries: int) -> None:
        """Damage a disk as soon as that is fair, if it is within a few seconds."""
        if fault.fair(self._scene.damage, host):
            self._note(fault)
            fault.strike(self._scene, host)
        elif tries:
            self._scene.later(_NEXT_TRY, partial(self._when_fair, fault, host, tries - 1))

    def _note(self, fault: Fault | DiskDamage) -> None:
        self._scene.counts[fault.name] += 1
        self._scene.cluster.scheduler.note(f"fault: {fault.name}")


def kinds(faults: Faults) -> tuple[str, ...]:
    """The kinds of faults that are on, by the names that a report has."""
    switched = {"bit flip": faults.bit_flips, "damaged log": faults.bit_flips, "wipe": faults.wipes}
    return tuple(fault.name for fault in FAULTS if switched.get(fault.name, True))


EFFECTS = (
    "a client ends",
    "a client is cut off",
    "a client leaves",
    "client sends again after NoNodeAvailable",
    "client sends again after Overloaded",
    "client sends again after ReadTimeout",
    "client sends again after Unavailable",
    "connections broken",
    "frames of a quarter of their limit or more",
    "frames refused by a later life",
    "frames sent into a half-open connection",
    "keepalives unanswered",
    "messages dropped",
    "replies unread for a while",
    "requests told that nothing was sent",
    "waits for a reader",
    "waits for a stalled disk",
    "workers that died",
    "workers that hung",
)
"""What faults must have led to, as counted inside: some of them may strike where nothing is under way."""
