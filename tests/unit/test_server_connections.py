"""A connection is ended by the name that gRPC has for its other end, and no other one is."""

from __future__ import annotations

import os
import socket

import pytest

from kvstore.server.connections import end_connection


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
