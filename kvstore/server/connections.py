"""Ending a client's connection: gRPC ends one by itself, but has no call for it."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from urllib.parse import unquote

_OPEN_FILES = "/dev/fd"
_MAPPED = "::ffff:"
"""Before the address of a peer that speaks IPv4 with a socket of IPv6."""


def end_connection(peer: str) -> bool:
    """End the connection of this process with `peer`, as gRPC names it; whether there was one.

    gRPC sees what it sees when the other side has gone: it ends all calls and frees what they hold.
    """
    _, _, address = unquote(peer).partition(":")
    for name in os.listdir(_OPEN_FILES):
        with suppress(OSError):  # it is no socket, or closed by now
            # a copy: gRPC may close its own at any time, and another file gets its number
            copy = os.dup(int(name))
            if not stat.S_ISSOCK(os.fstat(copy).st_mode):
                os.close(copy)
                continue
            with socket.socket(fileno=copy) as opened:
                if _address(opened.getpeername()) == address:
                    opened.shutdown(socket.SHUT_RDWR)
                    return True
    return False


def _address(name: object) -> str:
    """What `getpeername` has returned, as gRPC writes it; empty when it is no address of the Internet."""
    if not isinstance(name, tuple):
        return ""
    host, port = name[0].removeprefix(_MAPPED), name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
