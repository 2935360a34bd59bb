"""When a node that starts may take requests: those who are there must hear it, and be heard.

A write that it coordinated before would get no acks: its own streams to the others are not open yet, or
theirs to it, which they try to open again only now and then while it is away.
"""

from __future__ import annotations

import asyncio

from kvstore.server.links import Links
from kvstore.server.peer_service import PeerService

_JOIN_SECONDS = 1.0
"""Who has not answered by then is not there."""
_LOOK_SECONDS = 0.005


async def join(links: Links, peers: PeerService) -> None:
    """Wait until there are streams to and from each peer that can be reached; a second at most."""
    clock = asyncio.get_running_loop().time
    until = clock() + _JOIN_SECONDS
    while not all(_decided(links, peers, peer) for peer in links.peers):
        if clock() >= until:
            return
        await asyncio.sleep(_LOOK_SECONDS)


def _decided(links: Links, peers: PeerService, peer: str) -> bool:
    """Whether a peer is connected in both ways, or cannot be reached."""
    return peers.hears(peer) if links.connected(peer) else links.tried(peer)
