"""The shell around a node in one life of its host: what kvstore.server is under gRPC."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from kvstore.config import Limits
from kvstore.errors import InvalidRequest
from kvstore.lsm import Job, JobResult, Options
from kvstore.node.node import Node
from kvstore.node.scan import Step, Wanted
from kvstore.node.settings import NodeSettings
from kvstore.node.status import NodeStatus
from kvstore.protocol.client import Reply
from kvstore.protocol.gossip import Status
from kvstore.protocol.table import PeerMessage
from kvstore.ring import ClusterState, partition_bounds, split_data_key
from kvstore.sim.invariants import Invariants
from kvstore.sim.links import Links
from kvstore.sim.machine import Machine
from kvstore.sim.network import Connection, Network, SentFrame
from kvstore.sim.process import Later
from kvstore.sim.requests import Requests
from kvstore.sim.storage import Storage
from kvstore.sim.watched_engine import WatchedEngine
from kvstore.versions import BucketName, UserKey, decode_version
from kvstore.wire.peer import decode_timed_frame

OPTIONS = Options(memtable_bytes=8 * 1024, block_bytes=512, cache_bytes=64 * 1024)
"""Small, so that short runs flush and compact."""


@dataclass(frozen=True, slots=True)
class Startup:
    """What every node of a cluster is started with."""

    state: ClusterState
    settings: NodeSettings
    options: Options = OPTIONS


class Shell:
    """Engine, links, timer and node of one life; to be made on what the disk holds, which may refuse.

    `counts` are those of the host, over all its lives.
    """

    def __init__(
        self,
        startup: Startup,
        machine: Machine,
        later: Later,
        network: Network,
        requests: Requests,
        invariants: Invariants,
        counts: Counter[str],
    ) -> None:
        self._machine = machine
        self._later = later
        self._network = network
        self._requests = requests
        self._messages = invariants.messages
        self._counts = counts
        self._timer = 0
        self._due = float("inf")
        name, scheduler = machine.name, machine.scheduler
        self.engine = engine = WatchedEngine(machine.disk, "data", startup.options)
        engine.watch(name, invariants.engines)
        self.storage = Storage(
            machine.disk,
            engine,
            self,
            later,
            machine.disk_rng,
            machine.how_disk_works,
            lambda: scheduler.now,
        )
        peers = [member.node for member in startup.state.members if member.node != name]
        self.links = Links(name, peers, network, self, later, machine.links_rng)
        self.node = Node(name, startup.state, engine, self, machine.node_rng, startup.settings)

    def start(self) -> None:
        """Connect to the peers, and start the node."""
        self.links.open()
        self.node.start(self._machine.instant())

    # looking at it

    def status(self) -> NodeStatus:
        """What the node says of itself."""
        return self.node.status(self._machine.instant())

    def keys(self, bucket: BucketName, partition: int, limit: int = Limits.scan_keys) -> list[UserKey]:
        """All keys of a bucket that the node holds in one partition, read in steps of up to `limit`."""
        keys: list[UserKey] = []
        start, end = partition_bounds(partition, self.node.state.ring.partitions)
        wall = self._machine.instant().wall
        while start < end:
            versions, start = Step(self.engine.scan, limit).read(Wanted(bucket, UserKey(b"")), start, end)
            keys += [split_data_key(key)[2] for key, v in versions.items() if decode_version(v).visible(wall)]
        return keys

    def done(self) -> Counter[str]:
        """What this life has done so far."""
        done = self.storage.counts + self.links.counts()
        statistics = self.engine.statistics()
        done["flushes"] += statistics.flushes
        done["compactions"] += statistics.compactions
        counted = asdict(self.status().counters)
        return done + Counter({f"nodes: {name.replace('_', ' ')}": n for name, n in counted.items()})

    # frames of peers

    def read(self, sent_frame: SentFrame) -> None:
        """Hand a frame that has arrived to the node."""
        connection = sent_frame.connection
        sent_frame.read()
        sent_ms, messages = decode_timed_frame(sent_frame.frame)
        delay = connection.transit.delay(sent_ms / 1000, self._machine.clock.now())
        self._messages.received(self._machine.name, connection.sender, messages)
        try:
            self.node.on_frame(connection.sender, messages, self._machine.instant(), delay)
        except InvalidRequest:
            self._refuse(connection)

    def _refuse(self, connection: Connection) -> None:
        """The connection that a wrong frame came on is broken off, as kvstore.server does."""
        self._counts["frames refused"] += 1
        self._machine.scheduler.note(f"{self._machine.name} refuses a frame of {connection.sender}")
        self._network.end(connection)

    # the outbox

    def send(self, to: str, message: PeerMessage) -> None:
        """See Outbox."""
        self._messages.sent(self._machine.name, to, message)
        self.links.send(to, message)

    def reply(self, number: int, reply: Reply) -> None:
        """See Outbox."""
        self._requests.answer(number, reply)

    def set_timer(self, when: float) -> None:
        """See Outbox."""
        self._timer += 1
        number = self._timer
        self._due = when

        def fire() -> None:
            if number == self._timer:
                self._due = float("inf")
                self.node.on_timer(self._machine.instant())

        self._later(self._machine.clock.until(when), fire)

    def clock_changed(self) -> None:
        """The monotonic clock runs at another rate now, and with it the timer."""
        if self._due < float("inf"):
            self.set_timer(self._due)

    def request_sync(self) -> None:
        """See Outbox."""
        self.storage.request_sync()

    def defect(self, error: Exception) -> None:
        """See Outbox. The run has failed: a defect is as bad as a broken promise."""
        raise error

    def member_changed(self, node: str, status: Status, reason: str) -> None:
        """See Outbox. Nobody reads it here; the invariants watch what follows from it."""

    def on_state(self, state: ClusterState) -> None:
        """See Outbox."""
        self.links.on_state(m.node for m in state.members if m.node != self._machine.name)

    def start_job(self, job: Job) -> None:
        """See Outbox."""
        self.storage.start_job(job)

    # what the disk has done

    def on_durable(self, lsn: int) -> None:
        """See Worked."""
        self.node.on_durable(lsn, self._machine.instant())

    def on_job_done(self, result: JobResult) -> None:
        """See Worked."""
        self.node.on_job_done(result, self._machine.instant())

    def on_job_failed(self, job: Job) -> None:
        """See Worked."""
        self.node.on_job_failed(job, self._machine.instant())

    # what the links have met

    def on_link_open(self, peer: str) -> None:
        """See Owner."""
        self.node.on_link_open(peer, self._machine.instant())

    def on_link_lost(self, peer: str) -> None:
        """See Owner."""
        self.node.on_link_lost(peer, self._machine.instant())

    def on_unsent(self, peer: str, numbers: Sequence[int]) -> None:
        """See Owner."""
        self._counts["requests told that nothing was sent"] += len(numbers)
        self.node.on_unsent(peer, numbers, self._machine.instant())

    def clock_ms(self) -> int:
        """See Owner."""
        return int(self._machine.clock.now() * 1000)
