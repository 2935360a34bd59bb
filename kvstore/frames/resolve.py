"""What addresses a name has, asked anew each time."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future

_LONGEST = 1.5
"""Seconds to wait for the resolver: less than any attempt to connect has, so that its error says why."""

_lookups: dict[str, Future[Sequence[str]]] = {}
"""Those under way, by name: whoever asks for the same name meanwhile waits for the same answer."""


async def resolve(address: str) -> Sequence[str]:
    """The addresses `host:port` of a name, IPv6 in brackets, in the order in which to try them.

    Those of an address that is none of a name are itself. Raises OSError with the reason, ValueError when it
    is no name that can be looked up.
    """
    host, _, port = address.rpartition(":")
    name = host.strip("[]")
    try:
        hosts: Sequence[str] = _hosts(name, socket.AI_NUMERICHOST)
    except socket.gaierror:
        hosts = await _looked_up(name)
    return [f"[{each}]:{port}" if ":" in each else f"{each}:{port}" for each in hosts]


async def _looked_up(name: str) -> Sequence[str]:
    lookup = _lookups.get(name) or _begin(name)
    try:
        async with asyncio.timeout(_LONGEST):
            return await asyncio.wrap_future(lookup)
    except TimeoutError:
        raise OSError(f"its name is not resolved within {_LONGEST:g} s") from None


def _begin(name: str) -> Future[Sequence[str]]:
    # a daemon thread for each name: in an executor a resolver that does not answer would keep all names
    # waiting, and what else uses the executor, and would hold up the end of the program
    lookup = _lookups[name] = Future()
    lookup.set_running_or_notify_cancel()  # who leaves does not cancel it for the others
    thread = threading.Thread(target=_look_up, args=(name, lookup), name=f"resolve {name}", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        _end(name, lookup)
        lookup.set_exception(OSError(f"its name cannot be looked up: {error}"))
    return lookup


def _look_up(name: str, lookup: Future[Sequence[str]]) -> None:
    try:
        found = _hosts(name)
    except Exception as error:  # noqa: BLE001  (it is raised where it is waited for)
        _end(name, lookup)
        lookup.set_exception(error)
    else:
        _end(name, lookup)
        lookup.set_result(found)


def _end(name: str, lookup: Future[Sequence[str]]) -> None:
    """Whoever asks from now on begins a lookup of its own."""
    if _lookups.get(name) is lookup:
        del _lookups[name]


def _hosts(name: str, flags: int = 0) -> Sequence[str]:
    if "\0" in name:
        raise ValueError("a name holds no NUL")  # the system would look up what is before it
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


os.register_at_fork(after_in_child=_lookups.clear)  # a child has none of the threads
