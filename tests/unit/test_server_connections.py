"""A connection is ended by the name that gRPC has for its other end, and no other one is."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from kvstore.server.connections import end_connection
from kvstore.server.listener import Listener


@pytest.mark.parametrize(
    ("listen", "host"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")]
)
def test_the_connection_with_a_peer_is_ended(listen: str, host: str) -> None:
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    with socket.create_server((listen, 0), family=family, dualstack_ipv6=listen == "::") as listening:
        address = host, listening.getsockname()[1]
        with socket.create_connection(address) as client, socket.create_connection(address) as other:
            served, other_served = listening.accept()[0], listening.accept()[0]
            port = client.getsockname()[1]
            peer = f"ipv6:%5B::1%5D:{port}" if host == "::1" else f"ipv4:127.0.0.1:{port}"
            opened = len(os.listdir("/dev/fd"))
            with served, other_served:
                assert end_connection(peer)
                assert client.recv(1) == served.recv(1) == b""
                other.sendall(b"x")
                assert other_served.recv(1) == b"x"
                assert not end_connection("ipv4:127.0.0.1:1")
                assert not end_connection("unix:/tmp/x")
                assert len(os.listdir("/dev/fd")) == opened


def test_a_connection_that_was_accepted_while_its_node_stops_is_ended() -> None:
    """The loop tells of one an iteration after it has accepted it: by then the node may have stopped."""

    async def scenario() -> None:
        listener = Listener({})
        await listener.start(socket.create_server(("127.0.0.1", 0)), grpc_port=1)
        client, accepted = socket.socketpair()
        await listener.stop(0)
        listener.close()
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(listener.protocol, accepted)
        assert transport.is_closing()
        await asyncio.sleep(0)
        with client:
            assert client.recv(1) == b""

    asyncio.run(scenario())
