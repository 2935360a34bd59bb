"""How a node leaves its clients before it stops: each must know what became of its writes.

New requests are refused, which is safe to repeat at another node. What is under way comes to its end and is
replied to. The node says in every session that it stops, and a client of ours leaves when it has all replies:
only who has sent a call, and not its node, knows that no call is still on its way.
"""

from __future__ import annotations

import asyncio
import logging

from kvstore.server.client_service import ClientService
from kvstore.server.driver import Driver
from kvstore.server.links import Links

_WORK_SECONDS = 5.0
"""What is under way may take so long; whoever waits for it then is cut off, and his outcome is unknown."""
_LEAVE_SECONDS = 0.5
"""Clients that have all replies may take so long to leave: others than ours may not know that they should.
Peers may take so long to read what is queued for them: one that is stuck never does.
"""
_LOOK_SECONDS = 0.005

_log = logging.getLogger(__name__)


async def drain(driver: Driver, clients: ClientService, links: Links) -> None:
    """Take no new requests; returns when all is replied to and clients have left, or have had their time."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    driver.node.drain()
    clients.announce_stop()
    while clients.connected or driver.busy or links.queued_bytes:
        working = clients.unanswered or driver.busy
        if clock() - begun >= (_WORK_SECONDS if working else _LEAVE_SECONDS):
            _log.info(
                "cutting off %d clients; %d of their calls are under way",
                clients.connected,
                clients.unanswered,
            )
            return
        await asyncio.sleep(_LOOK_SECONDS)
