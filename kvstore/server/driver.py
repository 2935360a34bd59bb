"""Runs one node on one asyncio loop: hands in what arrives, carries out what the node wants done."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from kvstore.instant import Instant
from kvstore.lsm import Engine, Job, JobResult
from kvstore.node.node import Node
from kvstore.node.outbox import PeerMessage
from kvstore.node.settings import NodeSettings
from kvstore.protocol.messages import ClientRequest, Reply
from kvstore.ring import ClusterState
from kvstore.server.group_commit import GroupCommit
from kvstore.server.jobs import Jobs
from kvstore.server.links import Links

Respond = Callable[[Reply], None]

_UNTIMED = 1.0
"""The timer comes back after so many seconds even when a defect has kept the node from setting it."""

_log = logging.getLogger(__name__)


class Driver:
    """The outbox of one node, and its clock. All methods belong to the loop's thread.

    `on_fatal` is called when the storage has failed: it must end the process.
    """

    def __init__(
        self,
        name: str,
        state: ClusterState,
        engine: Engine,
        links: Links,
        settings: NodeSettings,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._links = links
        self._commit = GroupCommit(engine, self._durable, on_fatal)
        self._jobs = Jobs(self._job_done, self._job_failed, on_fatal)
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: dict[int, Respond] = {}
        self._cancelled: set[int] = set()
        self._last_request = 0
        self.frames_received = 0
        self.messages_received = 0
        # the system's entropy: what a node draws must differ from what it drew before a restart, and nobody
        # may guess the keys that it makes
        self.node = Node(name, state, engine, self, random.SystemRandom(), settings)

    def now(self) -> Instant:
        """The time of an input that is being handed in."""
        return Instant(self._loop.time(), int(time.time() * 1000))

    def start(self) -> None:
        """Open the links and start the node."""
        self._links.open(self._link_open, self._link_lost, self._unsent)
        self.node.start(self.now())

    async def stop(self) -> None:
        """Carry nothing out any more; sync and close the engine."""
        self._stopped = True
        if self._timer:
            self._timer.cancel()
        await self._jobs.close()
        await self._links.close()
        await self._commit.close()
        self.node.stop()

    # inputs

    def request(self, call: ClientRequest, respond: Respond) -> int:
        """Hand in a client's request; returns its number, for `forget`. `respond` may be called at once."""
        self.request_all([(call, respond)])
        return self._last_request

    def request_all(self, calls: Sequence[tuple[ClientRequest, Respond]]) -> None:
        """Hand in clients' requests that have arrived together: they share a turn of the node."""
        self.node.on_requests(self._numbered(calls), self.now())

    def _numbered(
        self, calls: Iterable[tuple[ClientRequest, Respond]]
    ) -> Iterator[tuple[int, ClientRequest]]:
        for call, respond in calls:
            self._last_request = number = self._last_request + 1
            self._waiting[number] = respond
            yield number, call

    def forget(self, request: int) -> None:
        """The client has gone: a late reply is dropped, and what need not be done is not."""
        if self._waiting.pop(request, None) is not None:
            if not self._cancelled:
                self._loop.call_soon(self._cancel)
            self._cancelled.add(request)

    def forget_all(self, respond: Callable[..., None]) -> None:
        """The client has gone whose replies go to partials of `respond`."""
        for request, each in list(self._waiting.items()):
            if isinstance(each, partial) and each.func == respond:
                self.forget(request)

    def _cancel(self) -> None:
        cancelled, self._cancelled = self._cancelled, set()
        if not self._stopped:
            self.node.on_cancelled(cancelled, self.now())

    def receive(self, sender: str, messages: Sequence[PeerMessage], delay: float = 0.0) -> None:
        """Hand in the messages of one frame that has waited for `delay` seconds on its way."""
        self.frames_received += 1
        self.messages_received += len(messages)
        self.node.on_frame(sender, messages, self.now(), delay)

    def _link_open(self, peer: str) -> None:
        if not self._stopped:
            self.node.on_link_open(peer, self.now())

    def _link_lost(self, peer: str) -> None:
        if not self._stopped:
            self.node.on_link_lost(peer, self.now())

    def _unsent(self, peer: str, requests: Sequence[int]) -> None:
        if not self._stopped:
            self.node.on_unsent(peer, requests, self.now())

    def _on_timer(self) -> None:
        self._timer = self._loop.call_later(_UNTIMED, self._on_timer)
        self.node.on_timer(self.now())

    def _durable(self, lsn: int) -> None:
        self.node.on_durable(lsn, self.now())

    def _job_done(self, result: JobResult) -> None:
        self.node.on_job_done(result, self.now())

    def _job_failed(self, job: Job) -> None:
        self.node.on_job_failed(job, self.now())

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
        """See Outbox."""
        self._commit.request()

    def defect(self, error: Exception) -> None:
        """See Outbox."""
        _log.error("a defect of the node; it goes on", exc_info=error)

    def start_job(self, job: Job) -> None:
        """See Outbox."""
        self._jobs.start(job)
