"""Drives the worker process that flushes and compacts, so that neither is ever done on the loop."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
from collections.abc import Callable
from typing import Any

import msgspec

from kvstore.errors import KVError
from kvstore.lsm import Job, JobResult, decode_result, encode_job
from kvstore.lsm.worker import DONE, STALLED, WORKING, command, frame, more_patience

_READ_BYTES = 64 * 1024
_POLL_SECONDS = 0.005
_END_SECONDS = 2.0
"""How long a node that stops waits for a worker that was killed. It runs no code of its own any more, but to
end it needs the processor, and on a busy machine one of its low priority may not get it for ten seconds."""

_log = logging.getLogger(__name__)


class Worker:
    """One process, started with the first job and again whenever it has died. One job at a time.

    It is given up, and killed, when it shows no sign of life for `patience` seconds; the next one has longer.
    """

    def __init__(self) -> None:
        self.patience = STALLED
        self._process: _Process | None = None

    async def run(self, job: Job) -> JobResult | None:
        """Do a job; None when it failed or the worker died, which is logged."""
        kind = type(job).__name__
        try:
            answer = await self._ask(encode_job(job))
            if answer[:1] == DONE:
                return decode_result(answer[1:])
        except TimeoutError:
            _log.error("the worker process stalled in a %s", kind)
            self.patience = more_patience(self.patience)
            await self._give_up()
            return None
        except (OSError, EOFError, KVError, msgspec.MsgspecError) as error:
            _log.error("the worker process died in a %s: %s", kind, error)
            await self._give_up()
            return None
        _log.error("%s failed: %s", kind, answer[1:].decode(errors="replace"))
        return None

    async def _ask(self, data: bytes) -> bytes:
        if self._process is not None and self._process.over:
            self._forget()
        if self._process is None:
            self._process = _Process()
        process = self._process
        await process.send(frame(data))
        answer = WORKING
        while answer == WORKING:
            async with asyncio.timeout(self.patience):
                answer = await process.receive()
        return answer

    async def _give_up(self) -> None:
        """End the process for good: its job is given to another, which must not meet it."""
        if self._process is not None:
            self._process.kill()
            await self._process.ended()
            self._forget()

    async def close(self) -> None:
        """End the process; a job that it was doing is abandoned. Takes no longer than a few seconds."""
        if self._process is None:
            return
        self._process.kill()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._process.ended()
        except TimeoutError:
            _log.warning("worker process %d, which was killed, has not ended yet", self._process.pid)
        self._forget()

    def _forget(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None


class _Process:
    """The process and its pipes, on this loop.

    Not asyncio's: that reaps children in threads of its own, loses the race for the status against `kill`,
    and lets who waits for the end wait for the pipes as well.
    """

    def __init__(self) -> None:
        """Start a fresh interpreter, never a fork: gRPC's threads do not survive one. Raises OSError."""
        theirs, self._lifeline = os.pipe()
        try:
            self._popen = subprocess.Popen(
                command(theirs),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(theirs,),
                process_group=0,
                bufsize=0,
            )
        except OSError:
            os.close(self._lifeline)
            raise
        finally:
            os.close(theirs)
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._in, self._out = self._popen.stdin.fileno(), self._popen.stdout.fileno()
        for descriptor in (self._in, self._out):
            os.set_blocking(descriptor, False)
        self._received = bytearray()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    async def send(self, data: bytes) -> None:
        """Write all of it; raises OSError when the process has died."""
        loop = asyncio.get_running_loop()
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._in, view) :]
            except BlockingIOError:
                await _ready(loop.add_writer, loop.remove_writer, self._in)

    async def receive(self) -> bytes:
        """The next frame; raises EOFError when the process has died."""
        length = int.from_bytes(await self._take(4), "big")
        return await self._take(length)

    async def _take(self, count: int) -> bytes:
        loop = asyncio.get_running_loop()
        while len(self._received) < count:
            try:
                data = os.read(self._out, _READ_BYTES)
            except BlockingIOError:
                await _ready(loop.add_reader, loop.remove_reader, self._out)
                continue
            if not data:
                raise EOFError("it has closed its output")
            self._received += data
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    def kill(self) -> None:
        """End it, whatever it does; may be called again."""
        self._popen.kill()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._popen.poll() is not None

    async def ended(self) -> None:
        """Wait until it has ended."""
        while not self.over:  # noqa: ASYNC110  (a child's end has no event that nobody else may take)
            await asyncio.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Close what leads to it."""
        os.close(self._lifeline)
        for pipe in (self._popen.stdin, self._popen.stdout):
            assert pipe is not None
            pipe.close()


async def _ready(add: Callable[..., Any], remove: Callable[[int], Any], descriptor: int) -> None:
    """Wait until a descriptor can be written to, or read from."""
    ready = asyncio.Event()
    add(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        remove(descriptor)
