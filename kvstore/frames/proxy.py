"""Connecting through an HTTP proxy (RFC 9110, section 9.3.6), if KVSTORE_PROXY names one."""

from __future__ import annotations

import asyncio
import os
import socket

from kvstore.config import is_port
from kvstore.frames.in_turn import first_good
from kvstore.frames.resolve import resolve

_VARIABLE = "KVSTORE_PROXY"
_LONGEST_ANSWER = 4096


def proxy() -> str:
    """`host:port` of the proxy on the way to all nodes; empty: they are reached directly."""
    named = os.environ.get(_VARIABLE, "")
    return named.removeprefix("http://").rstrip("/")


async def connect_through(proxy: str, address: str) -> socket.socket:
    """A connection to `host:port` through the proxy; raises OSError, also when it refuses, and ValueError."""
    host, _, port = proxy.rpartition(":")
    if not (host and is_port(port)):
        raise OSError(f"{_VARIABLE}={proxy!r} is not of the form host:port")
    opened = await first_good(await resolve(proxy), _connected, socket.socket.close)
    loop = asyncio.get_running_loop()
    try:
        request = f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n"
        await loop.sock_sendall(opened, request.encode())
        status = await _status(opened)
    except BaseException:
        opened.close()
        raise
    if status[:1] != ["200"]:
        opened.close()
        raise OSError(f"the proxy {proxy} refuses: {' '.join(status) or 'no answer'}")
    return opened


async def _connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    opened = socket.socket(socket.AF_INET6 if host.startswith("[") else socket.AF_INET, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        await asyncio.get_running_loop().sock_connect(opened, (host.strip("[]"), int(port)))
    except BaseException:
        opened.close()
        raise
    return opened


async def _status(opened: socket.socket) -> list[str]:
    """The status code of the answer and its reason. A node says nothing first, so all that comes is of it."""
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < _LONGEST_ANSWER:
        received = await asyncio.get_running_loop().sock_recv(opened, _LONGEST_ANSWER)
        if not received:
            return []
        answer += received
    return answer.partition(b"\r\n")[0].decode("latin-1").split(" ")[1:]
