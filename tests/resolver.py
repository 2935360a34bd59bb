"""A resolver whose names a test sets, in place of the system's."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest


class Resolver:
    """Names with their addresses; one in `stuck` is not answered until the event is set."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.names: dict[str, Sequence[str]] = {}
        self.stuck: dict[str, threading.Event] = {}
        self.asked: Counter[str] = Counter()
        self._system = socket.getaddrinfo
        patch.setattr(socket, "getaddrinfo", self._getaddrinfo)

    def _getaddrinfo(
        self, host: str, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        system = partial(self._system, port=port, family=family, type=type, proto=proto, flags=flags)
        if flags & socket.AI_NUMERICHOST or (host not in self.names and host not in self.stuck):
            return list(system(host))
        self.asked[host] += 1
        if host in self.stuck:
            self.stuck[host].wait()
        if not (found := self.names.get(host)):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [each for ip in found for each in system(ip)]
