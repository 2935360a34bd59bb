"""Ports of this machine for nodes to listen on."""

from __future__ import annotations

import errno
import random
import socket

from kvstore.errors import ConfigError

HOST = "127.0.0.1"

_random = random.SystemRandom()
"""Not the module's own generator: tests that seed it would all choose the same ports."""
_CANDIDATES = range(20_000, 32_768)
"""Below what Linux gives to outgoing connections, any of which could take a port before its node does."""


def check_port(address: str) -> None:
    """Raises ConfigError when `address` cannot be listened on."""
    host, _, port = address.rpartition(":")
    if problem := _problem(host, int(port)):
        reason = "is taken" if problem.errno == errno.EADDRINUSE else f"cannot be used: {problem.strerror}"
        raise ConfigError(f"port {port} {reason}; choose another with --port")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, chosen at random so that two who ask at once do not collide."""
    ports: list[int] = []
    while len(ports) < count:
        port = _random.choice(_CANDIDATES)
        if port not in ports and _problem(HOST, port) is None:
            ports.append(port)
    return ports


def _problem(host: str, port: int) -> OSError | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None
