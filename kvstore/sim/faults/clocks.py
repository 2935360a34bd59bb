"""Clocks that are wrong."""

from __future__ import annotations

from kvstore.sim.faults.scene import Fault, Scene

_HOUR_MS = 3_600_000


def clock_jump(scene: Scene) -> None:
    """The wall clock of a node is up to an hour wrong, either way, from now on."""
    scene.some_host().machine.clock_error_ms = scene.rng.randrange(-_HOUR_MS, _HOUR_MS)


def clock_drift(scene: Scene) -> None:
    """The monotonic clock of a node, and with it all its timers, runs faster or slower than others."""
    host = scene.some_host()
    host.drift(scene.rng.uniform(0.9, 1.1))
    scene.last(1.0, 15.0, host.drift)


FAULTS = (Fault("clock jump", clock_jump), Fault("clock drift", clock_drift))
