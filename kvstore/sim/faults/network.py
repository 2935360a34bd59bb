"""Splits, and frames that are lost, late, repeated, wrong or large."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from kvstore.sim.cluster import LARGE
from kvstore.sim.faults.scene import Fault, Scene
from kvstore.sim.network import Conditions, Link


def split(scene: Scene) -> None:
    """Some nodes from all others."""
    nodes = scene.shuffled()
    _cut(scene, scene.cluster.links(nodes[: scene.rng.randrange(1, len(nodes))]), 10.0)


def one_way_split(scene: Scene) -> None:
    """One node is heard, but hears nothing; or hears all, and is not heard."""
    side = [scene.some_host().name]
    inward = scene.rng.random() < 0.5
    _cut(scene, [link for link in scene.cluster.links(side) if (link[1] in side) == inward], 6.0)


def _cut(scene: Scene, links: Iterable[Link], most: float) -> None:
    cut = set(links)
    scene.cluster.network.cut |= cut
    scene.last(0.5, most, partial(scene.cluster.reconnect, cut))


def clogged_links(scene: Scene) -> None:
    """Some links of a node carry nothing for a while, then everything."""
    nodes = scene.shuffled()
    links = scene.cluster.links(nodes[:1])
    for sender, to in scene.rng.sample(links, scene.rng.randrange(1, len(links) + 1)):
        scene.cluster.network.clog(sender, to)
    scene.last(0.5, 8.0, scene.cluster.network.unclog)


def lost_frames(scene: Scene) -> None:
    """Of all nodes, some at random."""
    _weather(scene, "loss", scene.rng.uniform(0.01, 0.3), 5.0)


def repeated_frames(scene: Scene) -> None:
    """Of all nodes, some at random."""
    _weather(scene, "repeat", scene.rng.uniform(0.01, 0.5), 5.0)


def late_frames(scene: Scene) -> None:
    """Each has a delay of its own, so that they also arrive in another order."""
    _weather(scene, "most_delay", scene.rng.choice((0.01, 0.1, 1.0)), 5.0)


def wrong_frames(scene: Scene) -> None:
    """Well formed, with a value that should never be sent: a peer with a defect."""
    _weather(scene, "wrong", scene.rng.choice((0.01, 0.1, 0.5)), 5.0)


def _weather(scene: Scene, kind: str, how_bad: float, most: float) -> None:
    conditions = scene.cluster.network.conditions
    setattr(conditions, kind, how_bad)
    scene.last(0.5, most, partial(setattr, conditions, kind, getattr(Conditions(), kind)))


def large_versions(scene: Scene) -> None:
    """Clients write values of about the sizes at which something has a limit or overflows."""
    scene.cluster.value_sizes = LARGE
    scene.last(0.5, 4.0, scene.usual_versions)


def slow_node(scene: Scene) -> None:
    """All that one node sends and is sent takes many times as long: what hedges are for."""
    node = scene.some_host().name
    scene.cluster.network.slow[node] = scene.rng.choice((10.0, 50.0, 200.0))
    scene.last(0.5, 6.0, partial(_as_fast_as_others, scene, node))


def _as_fast_as_others(scene: Scene, node: str) -> None:
    scene.cluster.network.slow.pop(node, None)


FAULTS = (
    Fault("split", split, hosts=2),
    Fault("one way split", one_way_split, hosts=2),
    Fault("clogged links", clogged_links, hosts=2),
    Fault("lost frames", lost_frames, hosts=2),
    Fault("repeated frames", repeated_frames, hosts=2),
    Fault("late frames", late_frames, hosts=2),
    Fault("wrong frames", wrong_frames, hosts=2),
    Fault("large versions", large_versions),
    Fault("slow node", slow_node, hosts=2),
)
