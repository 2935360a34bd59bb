"""Disks that lose or change what was written to them."""

from __future__ import annotations

from functools import partial

from kvstore.sim.damage import Damage
from kvstore.sim.faults.scene import DiskDamage, Scene
from kvstore.sim.host import Host


def bit_flip(scene: Scene, host: Host) -> None:
    """One bit of one table; a host that has no table keeps its bits. Some find it by starting again."""
    if tables := [name for name in host.machine.disk.list("data") if name.endswith(".sst")]:
        path = f"data/{scene.rng.choice(tables)}"
        scene.damage.flip(host, path, scene.rng.random(), scene.rng.randrange(8))
        if scene.rng.random() < 0.5:
            scene.crash(host.name)
            scene.restart_within(0.1, 3.0, host.name)


def damaged_log(scene: Scene, host: Host) -> None:
    """One bit of a log or manifest, of a host that is down: it starts, or refuses to and is wiped."""
    scene.crash(host.name)
    logs = [name for name in host.machine.disk.list("data") if not name.endswith((".sst", "LOCK"))]
    path = f"data/{scene.rng.choice(logs)}"
    if host.machine.disk.size(path):
        scene.damage.flip_in_log(host, path, scene.rng.random(), scene.rng.randrange(8))
    scene.last(0.1, 3.0, partial(scene.damage.start, host))


def wipe(scene: Scene, host: Host) -> None:
    """The disk is replaced by an empty one."""
    scene.crash(host.name)
    scene.damage.wipe(host)
    scene.restart_within(0.1, 3.0, host.name)


FAULTS = (
    DiskDamage("bit flip", bit_flip, fair=Damage.may_flip),
    DiskDamage("damaged log", damaged_log),
    DiskDamage("wipe", wipe),
)
