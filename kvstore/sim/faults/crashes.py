"""Processes that end, and processes that stand still."""

from __future__ import annotations

from functools import partial

from kvstore.sim.faults.scene import Fault, Scene
from kvstore.sim.host import Host


def crash(scene: Scene) -> None:
    """One host."""
    host = scene.some_host()
    scene.crash(host.name)
    scene.restart_within(0.1, 6.0, host.name)


def crash_in_the_disk(scene: Scene) -> None:
    """At one of its next changing calls to the disk, whichever that is; it may tear a write."""
    host = scene.some_host()
    host.machine.disk.crash_at = host.machine.disk.mutations + scene.rng.randrange(1, 40)
    host.machine.disk.torn = scene.rng.random()
    scene.last(1.0, 6.0, partial(_no_more_crash_in_the_disk, scene, host))


def _no_more_crash_in_the_disk(scene: Scene, host: Host) -> None:
    host.machine.disk.crash_at = None
    scene.cluster.restart(host.name)


def crash_of_all(scene: Scene) -> None:
    """All hosts at one moment, each started again by itself."""
    for node in sorted(scene.cluster.hosts):
        scene.crash(node)
        scene.restart_within(0.1, 2.0, node)


def crash_of_most(scene: Scene) -> None:
    """All but two, for long enough that the two know it: what sloppy quorums are for."""
    for node in scene.shuffled()[2:]:
        scene.crash(node)
        scene.restart_within(4.0, 12.0, node)


def pause(scene: Scene) -> None:
    """Mostly short; now and then up to a minute, which is longer than every timeout."""
    scene.some_host().process.pause(scene.rng.uniform(0.2, scene.rng.choice((1.0, 5.0, 5.0, 60.0))))


FAULTS = (
    Fault("crash", crash),
    Fault("crash in the disk", crash_in_the_disk),
    Fault("crash of all", crash_of_all),
    Fault("crash of most", crash_of_most, hosts=3),
    Fault("pause", pause),
)
