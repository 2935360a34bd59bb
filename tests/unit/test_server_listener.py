"""The port of a node while it stops: no connection is left behind, however far it had come."""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import suppress

import pytest

from kvstore.server import listener as listener_module
from kvstore.server.listener import Listener
from tests.patience import PATIENCE


@pytest.mark.parametrize("turns", range(4))
def test_a_connection_that_comes_while_a_listener_stops_is_ended(
    monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """After no turn of the loop it is not accepted yet, after one asyncio has it, then the listener."""
    monkeypatch.setattr(listener_module, "_BEGIN_SECONDS", 100 * PATIENCE)

    async def scenario() -> None:
        listener, listening = Listener({}), socket.create_server(("127.0.0.1", 0))
        await listener.start(listening, grpc_port=1)
        clients = [socket.create_connection(listening.getsockname()) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        await listener.stop(0.0)
        listener.close()
        for client in clients:
            client.setblocking(False)
            with suppress(ConnectionError):
                async with asyncio.timeout(PATIENCE):
                    assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
            client.close()

    asyncio.run(scenario())
    gc.collect()  # what is not closed warns, and that is an error
