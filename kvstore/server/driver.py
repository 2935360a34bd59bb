"""Runs one node on one asyncio loop: hands in what arrives, carries out what the node wants done."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Container, Iterable, Sequence
from functools import partial

from kvstore.frames.incoming import Rest
from kvstore.frames.turn_ends import TurnEnds
from kvstore.lsm import Engine, Job, JobResult
from kvstore.node.node import Node
from kvstore.node.settings import NodeSettings
from kvstore.node.status import NodeStatus
from kvstore.principal import Principal
from kvstore.protocol.client import ClientRequest, Reply
from kvstore.protocol.gossip import Status
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import ReadSame, WriteAck
from kvstore.protocol.table import PeerMessage
from kvstore.ring import ClusterState
from kvstore.server.configuration import Configuration
from kvstore.server.execution import Executor
from kvstore.server.jobs import Jobs
from kvstore.server.links import Links
from kvstore.server.sync_thread import SyncThread

_UNTIMED = 1.0
"""The timer comes back after so many seconds even when a defect has kept the node from setting it."""

_TURN = 512
"""Messages of one frame that are handed in at once: others have their turn in between.

An answer to many questions counts as that many.
"""

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
        self.configuration = Configuration(settings)
        self.limits = settings.limits
        self.turn_ends = TurnEnds()
        self._syncs = SyncThread(engine, self._durable, on_fatal, self.turn_ends)
        self._jobs = Jobs(self._job_done, self._job_failed, on_fatal)
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self.executor = Executor(self)
        """Where clients' requests come in."""
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
        node, told = self.node, self._of_a_link
        self._links.open(
            partial(told, node.on_link_open),
            partial(told, node.on_link_lost),
            partial(told, node.on_unsent),
            self.turn_ends,
        )
        with self.turn_ends:
            self.node.start(self.now())

    @property
    def busy(self) -> bool:
        """Whether a request is under way, of a client or of a node that has passed it on."""
        return not self.executor.idle or self.node.base.admission.unanswered > 0

    async def stop(self) -> None:
        """Carry nothing out any more; sync and close the engine."""
        self._stopped = True
        if self._timer:
            self._timer.cancel()
        await self._jobs.close()
        await self._links.close()
        await self._syncs.close()
        self.node.stop()

    # inputs

    def hand_in(self, requests: Iterable[tuple[int, ClientRequest]], principal: Principal) -> None:
        """See Requests: they share a turn of the node."""
        with self.turn_ends:
            self.node.on_requests(requests, self.now(), principal)

    def give_up(self, numbers: Container[int]) -> None:
        """See Requests."""
        if not self._stopped:
            with self.turn_ends:
                self.node.on_cancelled(numbers, self.now())

    def expired(self) -> None:
        """See Requests."""
        self.node.base.counters.expired += 1

    def status(self) -> NodeStatus:
        """What the node says of itself."""
        return self.node.status(self.now())

    def receive(self, sender: str, messages: Sequence[PeerMessage], delay: float = 0.0) -> Rest:
        """Hand in the messages of one frame that has waited for `delay` seconds on its way.

        A long one takes several turns of the loop: what is left to do then is returned. Raises
        InvalidRequest, and then nothing was carried out.
        """
        self.frames_received += 1
        self.messages_received += len(messages)
        turns = _turns(messages)
        if len(turns) <= 1:
            with self.turn_ends:
                self.node.on_frame(sender, messages, self.now(), delay)
            return None
        self.node.check_frame(messages)
        return partial(self._receive_in_turns, sender, turns, delay)

    async def _receive_in_turns(self, sender: str, turns: list[Sequence[PeerMessage]], delay: float) -> None:
        for messages in turns:
            if self._stopped:
                return
            with self.turn_ends:
                self.node.on_checked(sender, messages, self.now(), delay)
            await asyncio.sleep(0)

    def _of_a_link(self, tell: Callable[..., None], *what: object) -> None:
        if not self._stopped:
            with self.turn_ends:
                tell(*what, self.now())

    def _on_timer(self) -> None:
        self._timer = self._loop.call_later(_UNTIMED, self._on_timer)
        with self.turn_ends:
            self.node.on_timer(self.now())

    def _durable(self, lsn: int) -> None:
        with self.turn_ends:
            self.node.on_durable(lsn, self.now())

    def _job_done(self, result: JobResult) -> None:
        with self.turn_ends:
            self.node.on_job_done(result, self.now())

    def _job_failed(self, job: Job) -> None:
        with self.turn_ends:
            self.node.on_job_failed(job, self.now())

    # the outbox

    def send(self, to: str, message: PeerMessage) -> None:
        """See Outbox."""
        self._links.send(to, message)

    def reply(self, number: int, reply: Reply) -> None:
        """See Outbox."""
        self.executor.reply(number, reply)

    def set_timer(self, when: float) -> None:
        """See Outbox."""
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer)

    def request_sync(self) -> None:
        """See Outbox."""
        self._syncs.request_sync()

    def defect(self, error: Exception) -> None:
        """See Outbox."""
        _log.error("a defect of the node; it goes on", exc_info=error)

    def member_changed(self, node: str, status: Status, reason: str) -> None:
        """See Outbox."""
        level = logging.WARNING if status is Status.DEAD else logging.INFO
        _log.log(level, "node %s is %s: %s", node, status.name.lower(), reason)

    def on_state(self, state: ClusterState) -> None:
        """See Outbox."""
        self._links.on_state(state)

    def start_job(self, job: Job) -> None:
        """See Outbox."""
        self._jobs.start(job)


def _turns(messages: Sequence[PeerMessage]) -> list[Sequence[PeerMessage]]:
    """The messages of a frame in parts that are each handed in at once."""
    turns = []
    first = taken = 0
    for i, message in enumerate(messages):
        more = len(message.numbers) if type(message) is ReadSame or type(message) is WriteAck else 1
        if taken + more > _TURN and i > first:
            turns.append(messages[first:i])
            first, taken = i, 0
        taken += more
    return [*turns, messages[first:]]
