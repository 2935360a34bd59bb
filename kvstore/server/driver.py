"""Runs one node on one asyncio loop: hands in what arrives, carries out what the node wants done."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from kvstore.errors import StorageError, StorageFailed, StorageFull
from kvstore.lsm import Engine, Job, JobResult
from kvstore.node.node import Node
from kvstore.node.outbox import Instant, PeerMessage
from kvstore.node.settings import NodeSettings
from kvstore.quorum.messages import ClientRequest, Reply
from kvstore.ring import ClusterState
from kvstore.server.jobs import Worker
from kvstore.server.links import Links

Respond = Callable[[Reply], None]

_JOB_PAUSE = 1.0
_FULL_PAUSE = 0.5


class Driver:
    """The outbox of one node, and its clock. All methods belong to the loop's thread."""

    def __init__(
        self,
        name: str,
        state: ClusterState,
        engine: Engine,
        links: Links,
        worker: Worker,
        settings: NodeSettings,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._engine = engine
        self._links = links
        self._worker = worker
        self._on_fatal = on_fatal
        self._sync_thread = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._sync_wanted = self._sync_running = self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._jobs: set[asyncio.Task[None]] = set()
        self._waiting: dict[int, Respond] = {}
        self._last_request = 0
        self.frames_received = 0
        self.messages_received = 0
        # the system's entropy: what a node draws must differ from what it drew before a restart
        self.node = Node(
            name, state, engine, self, random.Random(random.SystemRandom().getrandbits(128)), settings
        )

    def now(self) -> Instant:
        """The time of an input that is being handed in."""
        return Instant(self._loop.time(), int(time.time() * 1000))

    def start(self) -> None:
        """Open the links and start the node."""
        self._links.open(self._link_lost)
        self.node.start(self.now())

    async def stop(self) -> None:
        """Carry nothing out any more; sync and close the engine."""
        self._stopped = True
        if self._timer:
            self._timer.cancel()
        for task in self._jobs:
            task.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        await self._links.close()
        await self._worker.close()
        await self._loop.run_in_executor(None, self._sync_thread.shutdown)
        self.node.stop()

    # inputs

    def request(self, call: ClientRequest, respond: Respond) -> int:
        """Hand in a client's request; returns its number, for `forget`."""
        self._last_request += 1
        self._waiting[self._last_request] = respond
        self.node.on_request(self._last_request, call, self.now())
        return self._last_request

    def forget(self, request: int) -> None:
        """The client has gone: a late reply is dropped."""
        self._waiting.pop(request, None)

    def receive(self, sender: str, messages: Sequence[PeerMessage]) -> None:
        """Hand in the messages of one frame."""
        self.frames_received += 1
        self.messages_received += len(messages)
        self.node.on_frame(sender, messages, self.now())

    def _link_lost(self, peer: str) -> None:
        if not self._stopped:
            self.node.on_link_lost(peer, self.now())

    def _on_timer(self) -> None:
        self._timer = None
        self.node.on_timer(self.now())

    # the outbox

    def send(self, to: str, message: PeerMessage) -> None:
        """See Outbox."""
        self._links.send(to, message)

    def reply(self, request: int, reply: Reply) -> None:
        """See Outbox."""
        respond = self._waiting.pop(request, None)
        if respond is not None:
            respond(reply)

    def set_timer(self, when: float) -> None:
        """See Outbox."""
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer)

    def request_sync(self) -> None:
        """See Outbox. The sync begins at the end of this turn of the loop, with all that it appended."""
        if not self._sync_wanted:
            self._sync_wanted = True
            if not self._sync_running:
                self._loop.call_soon(self._sync)

    def start_job(self, job: Job) -> None:
        """See Outbox."""
        task = self._loop.create_task(self._run_job(job))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    # sync thread and worker

    def _sync(self) -> None:
        """Begin a sync, unless one is running: then the next follows it (group commit)."""
        if self._sync_running or self._stopped:
            return
        self._sync_wanted = False
        try:
            sync = self._engine.begin_sync()
        except StorageFull:
            # nothing is lost: the engine refuses writes until there is space again
            self._sync_wanted = True
            self._loop.call_later(_FULL_PAUSE, self._sync)
            return
        except StorageError as error:
            self._on_fatal(error)
            return
        if sync is None:
            self._durable(self._engine.durable_lsn)
            return
        self._sync_running = True

        def done(finished: asyncio.Future[None]) -> None:
            self._sync_running = False
            error = finished.exception()
            if error is not None:
                # never retried: what the kernel dropped cannot be known (PostgreSQL's fsync lesson)
                self._on_fatal(error)
                return
            self._durable(self._engine.finish_sync(sync))

        self._loop.run_in_executor(self._sync_thread, sync.run).add_done_callback(done)

    def _durable(self, lsn: int) -> None:
        if self._stopped:
            return
        self.node.on_durable(lsn, self.now())
        if self._sync_wanted:
            self._loop.call_soon(self._sync)

    async def _run_job(self, job: Job) -> None:
        result = await self._worker.run(job)
        if result is not None and self._job_done(result):
            return
        await asyncio.sleep(_JOB_PAUSE)
        self.node.on_job_failed(job, self.now())

    def _job_done(self, result: JobResult) -> bool:
        """Take the result into use; false when the disk was too full for that."""
        try:
            self.node.on_job_done(result, self.now())
        except StorageFull:
            return False
        except StorageFailed as error:
            self._on_fatal(error)
        return True
