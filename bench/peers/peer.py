"""What is compared: a store of three servers on this machine, and one client of it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from bench.usage import cpu

NODES = 3
_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.1


class Missing(Exception):
    """A peer cannot be had on this machine; the message says what is missing and where it comes from."""


class Peer(ABC):
    """A store that is started, loaded and stopped; its servers and its client are on this machine."""

    name: str
    guarantee: str
    """When a put is acknowledged, and whom a get asks."""
    client: str
    """What it is loaded with."""

    @abstractmethod
    async def start(self, directory: Path) -> None:
        """Start the servers with their data in `directory`, and connect."""

    @abstractmethod
    async def stop(self) -> None:
        """Disconnect and end the servers, also those of a start that has failed."""

    @abstractmethod
    async def put(self, key: bytes, value: bytes) -> None:
        """Store a value; returns when it is acknowledged."""

    @abstractmethod
    async def get(self, key: bytes) -> bytes:
        """The value of a key that is there."""

    @abstractmethod
    def server_cpu(self) -> float:
        """Seconds of CPU that the servers have used so far."""


def program(names: Sequence[str], directory: str | None, how: str) -> str:
    """The first of these in `directory`, or on the PATH. Raises Missing, which says `how` to get it."""
    for name in names:
        if found := shutil.which(name, path=directory):
            return found
    raise Missing(f"no {' or '.join(names)} in {directory or 'PATH'}: {how}")


class Servers:
    """The server processes of one peer."""

    def __init__(self) -> None:
        self._processes: list[tuple[subprocess.Popen[bytes], Path]] = []

    def start(self, command: Sequence[str], directory: Path) -> None:
        """Start one in a directory of its own, where what it prints is kept too."""
        directory.mkdir(parents=True, exist_ok=True)
        output = directory / "output.log"
        with output.open("wb") as log:
            process = subprocess.Popen(
                command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._processes.append((process, output))

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        return sum(cpu(process.pid) for process, _ in self._processes)

    async def until_open(self, addresses: Sequence[tuple[str, int]]) -> None:
        """Wait until something listens on each of these; raises RuntimeError when a server has ended."""
        async with asyncio.timeout(_START_SECONDS):
            for host, port in addresses:
                while not await _is_open(host, port):
                    self._check()
                    await asyncio.sleep(_POLL_SECONDS)

    def _check(self) -> None:
        for process, output in self._processes:
            if process.poll() is not None:
                lines = output.read_text(errors="replace").strip().splitlines()
                raise RuntimeError(
                    f"a server in {output.parent} has ended: {lines[-1] if lines else 'it printed nothing'}"
                )

    def stop(self) -> None:
        """End them all."""
        for process, _ in self._processes:
            process.terminate()
        for process, _ in self._processes:
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def _is_open(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
