"""Disks that are slow, full or failing, and the workers that write to them."""

from __future__ import annotations

from functools import partial

from kvstore.sim.faults.scene import Fault, Scene
from kvstore.sim.host import Host


def slow_disk(scene: Scene) -> None:
    """Syncs take long."""
    host = scene.some_host()
    host.machine.slow_down(scene.rng.choice((0.02, 0.2, 1.0)))
    scene.last(0.5, 4.0, host.machine.slow_down)


def busy_disk(scene: Scene) -> None:
    """The more is under way on a disk, the longer all of it takes."""
    how = scene.some_host().machine.how_disk_works
    how.load = scene.rng.choice((5.0, 50.0, 500.0))
    scene.last(0.5, 6.0, partial(setattr, how, "load", 0.0))


def stalled_disk(scene: Scene) -> None:
    """Nothing on a disk comes to its end for a while."""
    until = scene.cluster.scheduler.now + scene.rng.uniform(0.5, 6.0)
    scene.some_host().machine.how_disk_works.stalled_until = until


def full_disk(scene: Scene) -> None:
    """No space for anything new, also for a node that starts; then there is space again."""
    host = scene.some_host()
    host.machine.disk.full, host.machine.disk.torn = True, scene.rng.random()
    scene.last(0.5, 6.0, partial(_space_again, scene, host))


def _space_again(scene: Scene, host: Host) -> None:
    host.machine.disk.full = False
    scene.cluster.restart(host.name)


def failing_disk(scene: Scene) -> None:
    """Every change fails with EIO: the first sync ends the process, and recovery decides."""
    host = scene.some_host()
    host.machine.disk.broken = True
    scene.last(0.2, 3.0, partial(_working_again, scene, host))


def _working_again(scene: Scene, host: Host) -> None:
    host.machine.disk.broken = False
    scene.cluster.restart(host.name)


def dying_workers(scene: Scene) -> None:
    """The process that flushes or compacts dies in its next jobs, in the middle or before it answers."""
    scene.some_host().machine.how_disk_works.deaths = scene.rng.randrange(1, 5)


def hanging_workers(scene: Scene) -> None:
    """The process that flushes or compacts stops answering: it is killed after a time limit."""
    scene.some_host().machine.how_disk_works.hangs = scene.rng.randrange(1, 3)


FAULTS = (
    Fault("slow disk", slow_disk),
    Fault("busy disk", busy_disk),
    Fault("stalled disk", stalled_disk),
    Fault("full disk", full_disk),
    Fault("failing disk", failing_disk),
    Fault("dying workers", dying_workers),
    Fault("hanging workers", hanging_workers),
)
