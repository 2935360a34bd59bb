"""A few nodes joined by plain lists: messages are delivered at once, time moves when a test moves it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from kvstore.config import BucketSettings
from kvstore.errors import InvalidRequest, KVError
from kvstore.lsm import Engine, Job, MemoryFileSystem, Options
from kvstore.node.node import Node
from kvstore.node.settings import NodeSettings
from kvstore.node.status import NodeStatus
from kvstore.protocol.client import ClientRequest, Failed, Found, Reply, Stored
from kvstore.protocol.gossip import Status
from kvstore.protocol.instant import Instant
from kvstore.protocol.scan import Scan, Scanned, ScannedKey
from kvstore.protocol.table import PeerMessage
from kvstore.ring import DATA_KEYSPACE, ClusterState, Member, initial_state
from tests.plain import data_key, token

WALL = 1_700_000_000_000


class Host:
    """One node with its outbox and disk."""

    def __init__(self, name: str, cluster: Cluster, fs: MemoryFileSystem) -> None:
        self.fs = fs
        self.engine = Engine.open(fs, name, cluster.options)
        self.sent: list[tuple[str, PeerMessage]] = []
        self.replies: dict[int, Reply] = {}
        self.beliefs: list[tuple[str, Status]] = []
        self.sync_wanted = False
        self.timer = float("inf")
        self.members = {member.node for member in cluster.state.members}
        self.node = Node(name, cluster.state, self.engine, self, cluster.rng, cluster.settings)
        self._cluster = cluster
        self.node.start(cluster.instant)

    def status(self) -> NodeStatus:
        """What the node says of itself."""
        return self.node.status(self._cluster.instant)

    def send(self, to: str, message: PeerMessage) -> None:
        self.sent.append((to, message))

    def reply(self, number: int, reply: Reply) -> None:
        assert number not in self.replies, "a request is answered once"
        self.replies[number] = reply

    def set_timer(self, when: float) -> None:
        self.timer = when

    def request_sync(self) -> None:
        self.sync_wanted = True

    def defect(self, error: Exception) -> None:
        raise error

    def member_changed(self, node: str, status: Status, reason: str) -> None:
        assert reason
        self.beliefs.append((node, status))

    def on_state(self, state: ClusterState) -> None:
        self.members = {member.node for member in state.members}

    def start_job(self, job: Job) -> None:
        raise AssertionError(f"these tests write too little for {job}")


class Cluster:
    """Nodes n1, n2, ...; what `dead` ones should get is lost, what `passes` refuses too.

    They share so many `machines` in turn; 0: each is on one of its own.
    """

    def __init__(
        self,
        nodes: int = 3,
        buckets: Sequence[BucketSettings] = (),
        settings: NodeSettings | None = None,
        options: Options | None = None,
        machines: int = 0,
    ) -> None:
        self.options = options
        self.machines = machines
        self.rng = random.Random(1)
        self.now = 0.0
        self.settings = settings
        members = [self._member(f"n{i}") for i in range(1, nodes + 1)]
        self.state = initial_state("test", members, 16, 3, buckets)
        self.dead: set[str] = set()
        self.stuck: set[str] = set()  # disks that never finish a sync
        self.passes: Callable[[str, str, PeerMessage], bool] = lambda sender, to, message: True
        self.requests = 0
        self.refused = 0  # frames
        self.hosts = {m.node: Host(m.node, self, MemoryFileSystem()) for m in members}
        self.run()

    def _member(self, node: str) -> Member:
        number = int(node[1:])
        host = f"m{number % self.machines}" if self.machines else ""
        return Member(node, f"host:{7000 + number}", host=host)

    @property
    def instant(self) -> Instant:
        return Instant(self.now, WALL + int(self.now * 1000))

    def replicas(self, bucket: str, key: bytes) -> tuple[str, ...]:
        """The nodes of a key, most preferred first."""
        ring = self.state.ring
        return ring.replica_lists[ring.partition(bucket, key)]

    def stored(self, node: str, bucket: str, key: bytes) -> bytes | None:
        """What a node's engine holds for a key."""
        return self.hosts[node].engine.get(data_key(token(bucket, key), bucket, key))

    def hints(self, node: str) -> dict[str, int]:
        return {pending.target: pending.count for pending in self.hosts[node].status().hints}

    def restart(self, *members: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        """All nodes stop; these come back, as the whole of the cluster, on the disks that they had."""
        for host in self.hosts.values():
            host.node.stop()
        meanwhile()
        chosen = [self._member(node) for node in members]
        self.state = initial_state("test", chosen, 16, 3, self.state.buckets)
        disks = {name: host.fs for name, host in self.hosts.items()}
        self.dead.clear()
        self.hosts = {node: Host(node, self, disks.get(node) or MemoryFileSystem()) for node in members}
        self.run()

    def start_again(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """All nodes stop and start on the disks that they had."""
        self.restart(*self.hosts, meanwhile=meanwhile)

    def put_on_disk(self, node: str, key: bytes, value: bytes) -> None:
        """Store something for a node that does not run, as another version of it might have."""
        engine = Engine.open(self.hosts[node].fs, node)
        engine.write([(key, value)])
        engine.sync()
        engine.close()

    def contents(self, node: str) -> dict[bytes, bytes]:
        """Every version that is on a node's disk, by internal key."""
        return dict(self.hosts[node].engine.scan_prefix(DATA_KEYSPACE))

    def live(self) -> list[str]:
        return [name for name in self.hosts if name not in self.dead]

    def kill(self, *nodes: str) -> None:
        """These nodes stop, and time passes until the others have noticed."""
        self.dead.update(nodes)
        self.move(30.0)

    def revive(self, *nodes: str) -> None:
        """These nodes go on where they stopped, and time passes until the others have noticed."""
        self.dead.difference_update(nodes)
        self.move(10.0)

    def start(self, node: str, call: ClientRequest) -> int:
        """Hand in a request without delivering anything; returns its number."""
        self.requests += 1
        self.hosts[node].node.on_requests([(self.requests, call)], self.instant)
        return self.requests

    def run(self) -> None:
        """Deliver all messages and finish all syncs."""
        while self._deliver() or self._sync():
            pass

    def move(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end = self.now + seconds
        while (due := min(self.hosts[name].timer for name in self.live())) <= end:
            self.now = max(self.now, due)
            for name in self.live():
                host = self.hosts[name]
                if host.timer <= self.now:
                    host.timer = float("inf")
                    host.node.on_timer(self.instant)
            self.run()
        self.now = end

    def call(self, node: str, call: ClientRequest, patience: float = 10.0) -> Reply:
        """A request and its reply; time passes if it must."""
        number = self.start(node, call)
        self.run()
        if number not in self.hosts[node].replies:
            self.move(patience)
        return self.hosts[node].replies[number]

    def page(self, node: str, scan: Scan, patience: float = 10.0) -> Scanned | KVError:
        """A page of a scan that a node makes, or why not; time passes if it must."""
        replies: list[Scanned | Failed] = []
        self.hosts[node].node.on_scan(scan, replies.append, self.instant)
        self.run()
        if not replies:
            self.move(patience)
        (reply,) = replies
        return reply.error if isinstance(reply, Failed) else reply

    def scanned(self, scan: Scan, *nodes: str) -> list[ScannedKey]:
        """All keys of all pages, made by these nodes in turn, or by n1."""
        keys: list[ScannedKey] = []
        for number in range(500):
            page = self.page(nodes[number % len(nodes)] if nodes else "n1", scan)
            assert isinstance(page, Scanned), page
            keys += page.keys
            if not page.next:
                return keys
            assert page.next > scan.cursor
            scan = replace(scan, cursor=page.next)
        raise AssertionError("it does not end")

    def found(self, node: str, call: ClientRequest) -> Found:
        reply = self.call(node, call)
        assert isinstance(reply, Found), reply
        return reply

    def stored_reply(self, node: str, call: ClientRequest) -> Stored:
        reply = self.call(node, call)
        assert isinstance(reply, Stored), reply
        return reply

    def error(self, node: str, call: ClientRequest) -> Exception:
        reply = self.call(node, call)
        assert isinstance(reply, Failed), reply
        return reply.error

    def _deliver(self) -> bool:
        moved = False
        for name in self.live():
            host = self.hosts[name]
            sent, host.sent = host.sent, []
            for to, message in sent:
                moved = True
                if to not in self.dead and self.passes(name, to, message):
                    self._hand_over(name, to, message)
        return moved

    def _hand_over(self, sender: str, to: str, message: PeerMessage) -> None:
        try:
            self.hosts[to].node.on_frame(sender, [message], self.instant)
        except InvalidRequest:
            self.refused += 1
            self.hosts[sender].node.on_link_lost(to, self.instant)

    def _sync(self) -> bool:
        moved = False
        for name in self.live():
            host = self.hosts[name]
            if host.sync_wanted and name not in self.stuck:
                host.sync_wanted = False
                moved = True
                host.node.on_durable(host.engine.sync(), self.instant)
        return moved
