"""The clients of one host: `python -m jepsen.client SPEC.json` operates until its time is over.

It prints a line when it is connected, and begins when it reads one: the ns of the machine's monotonic clock
that the run's time is counted from. How long a busy machine takes to start a process is no part of that.

Every thread has an operation under way at a time and writes it into the host's own history; times are by that
clock, so that the histories of all hosts are merged by them.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

import kvstore.aio
from jepsen.history import HistoryWriter
from jepsen.workloads import WORKLOADS
from jepsen.workloads.base import Call, NotSent, Thread, Workload
from kvstore.client.asynchronous import Bucket, Client
from kvstore.errors import KVError, NoNodeAvailable, Outcome

_READS = ("read", "look")
_PAUSE_SECONDS = 0.2


class Spec(msgspec.Struct, frozen=True):
    """What the clients of one host do. Times are in seconds."""

    host: str
    endpoints: list[str]
    history: str
    workloads: list[str]
    numbers: list[int]
    """Of the threads of this host, every `clients`-th of all `threads`."""
    clients: int
    threads: int
    keys: int
    rate: float
    """Operations a second of each thread."""
    seed: int
    seconds: float
    timeout: float


def clock_since(began: int) -> Callable[[], int]:
    """A clock whose first reading is `began`: a HistoryWriter takes that for its time 0."""
    first = iter([began])
    return lambda: next(first, None) or time.monotonic_ns()


async def run(spec: Spec) -> None:
    """Operate until the time is over."""
    workloads = [WORKLOADS[name](spec.keys) for name in spec.workloads]
    async with await _connected(spec) as db:
        print("connected", flush=True)
        began = int(await asyncio.to_thread(sys.stdin.readline))
        with HistoryWriter(Path(spec.history), clock_since(began)) as writer:
            async with asyncio.TaskGroup() as threads:
                for number in spec.numbers:
                    round_, host = divmod(number, spec.clients)
                    workload = workloads[round_ % len(workloads)]
                    # every host has threads of every workload, if there are enough
                    place = round_ // len(workloads) * spec.clients + host
                    count = (spec.threads // (spec.clients * len(workloads)) + 1) * spec.clients
                    rng = random.Random(f"{spec.seed} thread {number}")
                    thread = Thread(place, count, rng)
                    operator = _Operator(spec, writer, workload, db.bucket(workload.name), thread, number)
                    threads.create_task(operator.run())


async def _connected(spec: Spec) -> Client:
    """A client, once a node can be reached."""
    while True:
        try:
            return await kvstore.aio.connect(spec.endpoints, timeout=spec.timeout)
        except NoNodeAvailable:
            await asyncio.sleep(_PAUSE_SECONDS)


class _Operator:
    """One thread at work."""

    def __init__(
        self,
        spec: Spec,
        writer: HistoryWriter,
        workload: Workload,
        bucket: Bucket,
        thread: Thread,
        number: int,
    ) -> None:
        self._spec = spec
        self._writer = writer
        self._workload = workload
        self._bucket = bucket
        self._thread = thread
        self._process = number

    async def run(self) -> None:
        """Operate at the thread's rate, or as fast as the answers come."""
        spec, thread = self._spec, self._thread
        at = 0.0
        while True:
            now = self._writer.now() / 1e9
            at = max(now, at + thread.rng.expovariate(spec.rate))
            if at >= spec.seconds:
                return
            await asyncio.sleep(at - now)
            thread.elapsed = at
            await self._operate(self._workload.next(thread))

    async def _operate(self, call: Call) -> None:
        writer = self._writer
        op = writer.invoke(
            self._process, call.f, call.value, key=call.key, node=self._spec.host, extra=call.extra
        )
        try:
            done = await self._workload.perform(self._bucket, self._thread, call)
        except NotSent as error:
            writer.complete(op, "fail", error=_described(error.error))
        except KVError as error:
            if call.f in _READS or error.outcome is Outcome.NOT_APPLIED:
                writer.complete(op, "fail", error=_described(error))
            else:
                writer.complete(op, "info", error=_described(error))
                # as in Jepsen: nobody knows what the process has done, so it never operates again
                self._process += self._spec.threads
                self._thread.forget()
        else:
            writer.complete(op, "ok", done.value, extra=done.extra)


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    asyncio.run(run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Spec)))
