"""The streams between nodes, and those to clients."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from kvstore.sim.faults.scene import Fault, Scene
from kvstore.sim.links import Stream
from kvstore.sim.network import SMALL_MESSAGE


def broken_links(scene: Scene) -> None:
    """Some connections break: what waits on them is lost, and they are made anew."""
    for stream in _some_streams(scene):
        stream.break_off()


def half_open_links(scene: Scene) -> None:
    """Some connections are forgotten on their way: only an unanswered keepalive tells."""
    for stream in _some_streams(scene):
        stream.forget()


def _some_streams(scene: Scene) -> list[Stream]:
    """One or both of those to one, some or all peers of a host that is up."""
    host = scene.some_host()
    peers = [node for node in scene.shuffled() if node != host.name]
    streams = scene.rng.choice((1, 2))
    peers = peers[: scene.rng.randrange(1, len(peers) + 1)]
    return [stream for peer in peers if host.up for stream in host.shell.links.streams(peer)[:streams]]


def unread_streams(scene: Scene) -> None:
    """A node reads nothing of what some or all of its peers send it: flow control holds them back."""
    host = scene.some_host()
    peers = [node for node in scene.shuffled() if node != host.name]
    host.inbox.deaf_to = frozenset(peers[: scene.rng.randrange(1, len(peers) + 1)])
    scene.last(0.5, 8.0, host.inbox.read_again)


def unread_replies(scene: Scene) -> None:
    """A client reads no replies for a while, perhaps until it has given their requests up."""
    if clients := sorted(scene.cluster.clients):
        client = scene.rng.choice(clients)
        scene.cluster.stop_reading(client)
        scene.last(0.5, 10.0, partial(scene.cluster.read_again, client))


def small_messages(scene: Scene) -> None:
    """From now on a frame must not be much larger than what a client may write."""
    network = scene.cluster.network
    network.limits = replace(network.limits, message=SMALL_MESSAGE)


FAULTS = (
    Fault("broken links", broken_links, hosts=2),
    Fault("half-open links", half_open_links, hosts=2),
    Fault("unread streams", unread_streams, hosts=2),
    Fault("unread replies", unread_replies),
    Fault("small messages", small_messages),
)
