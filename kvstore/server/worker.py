"""Drives the worker process that flushes and compacts, so that neither is ever done on the loop."""

from __future__ import annotations

import asyncio
import logging
import os

from kvstore.errors import KVError
from kvstore.lsm import Job, JobResult, decode_result, encode_job
from kvstore.lsm.worker import DONE, STALLED, WORKING, command, frame

_log = logging.getLogger(__name__)


class Worker:
    """One process, started with the first job and again whenever it has died. One job at a time.

    It is given up, and killed, when it shows no sign of life for `patience` seconds.
    """

    def __init__(self) -> None:
        self.patience = STALLED
        self._process: asyncio.subprocess.Process | None = None
        self._lifeline: int | None = None

    async def run(self, job: Job) -> JobResult | None:
        """Do a job; None when it failed or the worker died, which is logged."""
        try:
            answer = await self._ask(encode_job(job))
            if answer[:1] == DONE:
                return decode_result(answer[1:])
        except TimeoutError:
            _log.error("the worker process stalled in a %s", type(job).__name__)
            await self.close()
            return None
        except (OSError, asyncio.IncompleteReadError, KVError) as error:
            _log.error("the worker process died in a %s: %s", type(job).__name__, error)
            await self.close()
            return None
        _log.error("%s failed: %s", type(job).__name__, answer[1:].decode(errors="replace"))
        return None

    async def _ask(self, data: bytes) -> bytes:
        if self._process is None or self._process.returncode is not None:
            self._process = await self._start()
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(frame(data))
        await stdin.drain()
        answer = WORKING
        while answer == WORKING:
            async with asyncio.timeout(self.patience):
                length = int.from_bytes(await stdout.readexactly(4), "big")
                answer = await stdout.readexactly(length)
        return answer

    async def _start(self) -> asyncio.subprocess.Process:
        """A fresh interpreter, never a fork: gRPC's threads do not survive one."""
        self._cut_lifeline()
        lifeline, self._lifeline = os.pipe()
        try:
            return await asyncio.create_subprocess_exec(
                *command(lifeline),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=(lifeline,),
                process_group=0,
            )
        finally:
            os.close(lifeline)

    def _cut_lifeline(self) -> None:
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            os.close(lifeline)

    async def close(self) -> None:
        """End the process; a job that it was doing is abandoned."""
        self._cut_lifeline()
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()
