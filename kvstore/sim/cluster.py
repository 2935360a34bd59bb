"""A whole cluster under virtual time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from kvstore.config import KIB, AntiEntropySettings, BucketSettings, Limits
from kvstore.lsm import Fate, Options
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import ClientRequest, Reply
from kvstore.protocol.peer import TreeNode
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.background.merkle_tree import NODES, ROOT
from kvstore.ring import Member, initial_state, internal_key, preference_list
from kvstore.sim.host import Host
from kvstore.sim.invariants import Invariants
from kvstore.sim.network import Conditions, Link, Network
from kvstore.sim.requests import Respond
from kvstore.sim.scheduler import Scheduler
from kvstore.sim.shell import OPTIONS, Startup
from kvstore.versions import BucketName, EncodedVersion, UserKey

Watch = Callable[[str, str, ClientRequest, Respond], Respond]

PARTITIONS = 16
_REPLICAS = 3
REAP_AGE = 20.0
"""More than twice the longest way of a frame: a second late (Nemesis), then 8 s on a link that is clogged."""
SETTINGS = NodeSettings(
    anti_entropy=AntiEntropySettings(interval=2.0, settle=0.5, reap_interval=3.0, reap_age=REAP_AGE)
)
_RESET_SECONDS = 0.001

LIMITS = Limits(value=6 * KIB, version=12 * KIB)
"""Small, so that the runs reach them."""
USUAL: tuple[int, ...] = (64,)
LARGE = (
    64,
    OPTIONS.block_bytes - 1,
    OPTIONS.block_bytes,
    LIMITS.value - 1,
    LIMITS.value,
    LIMITS.value + 1,
    LIMITS.version // 3,
)
"""Around the limits: a block of a table, a value, all siblings of a key (and so a memtable and a segment)."""


class SimulatedCluster:
    """Hosts n1, n2, ... on one scheduler; one seed, one course of events."""

    def __init__(
        self,
        seed: int | str,
        nodes: int = 3,
        buckets: Sequence[BucketSettings] = (),
        settings: NodeSettings = SETTINGS,
        options: Options = OPTIONS,
    ) -> None:
        self.scheduler = Scheduler()
        self.value_sizes = USUAL
        """Bytes of what clients write now."""
        self.watch: Watch | None = None
        """Sees every client's request, and may put itself between it and its reply."""
        self.counts: Counter[str] = Counter()
        self.clients: dict[str, list[Callable[[], None]] | None] = {}
        """Those seen so far; the replies that wait for one that does not read, None for one that does."""
        self.on_death: list[Callable[[str], None]] = []
        """Told of a host that has died: connections of clients end with it."""
        self.network = Network(self.scheduler, random.Random(f"{seed}/network"))
        members = [Member(f"n{i}", f"n{i}:7000") for i in range(1, nodes + 1)]
        replicas = max(_REPLICAS, *(bucket.n for bucket in buckets)) if buckets else _REPLICAS
        self.state = initial_state("simulated", members, PARTITIONS, replicas, buckets)
        self.invariants = Invariants(self.scheduler, self.state, settings)
        startup = Startup(self.state, settings, options)
        self.hosts = {
            member.node: Host(
                member.node,
                startup,
                self.scheduler,
                self.network,
                str(seed),
                self._connections_broke,
                self.invariants,
            )
            for member in members
        }
        self.invariants.hosts.update(self.hosts)

    def start(self) -> None:
        """Start every host that is down."""
        for host in self.hosts.values():
            if not host.up:
                host.start()

    def _connections_broke(self, node: str) -> None:
        """A host's connections end with it; the others learn of it, unless they are cut off."""
        for name, host in self.hosts.items():
            if name != node and (node, name) not in self.network.cut:
                self.scheduler.after(_RESET_SECONDS, partial(host.break_links, node))
        for tell in self.on_death:
            self.scheduler.after(0.0, partial(tell, node))

    def steady(self) -> None:
        """Every frame and every sync takes a millisecond: for transcripts that people read."""
        self.network.conditions = Conditions(least_delay=0.001, most_delay=0.001)
        for host in self.hosts.values():
            host.machine.how_disk_works.jitter = 0.0
            host.machine.slow_down(0.001)

    # faults

    def crash(self, node: str, fate: Fate = Fate.NONE) -> None:
        """Stop a host as a power failure would, if it is up."""
        if self.hosts[node].up:
            self.hosts[node].crash(fate)

    def restart(self, node: str) -> None:
        """Start a host that is down; one that is kept down so long, when that is over."""
        host = self.hosts[node]
        if host.up:
            return
        if self.scheduler.now < host.kept_down_until:
            self.scheduler.after(host.kept_down_until - self.scheduler.now, lambda: self.restart(node))
        else:
            self.scheduler.note(f"{node} starts")
            host.start()

    def links(self, side: Iterable[str]) -> list[Link]:
        """All links between `side` and the other hosts, in both directions."""
        inside = set(side)
        return [(a, b) for a in self.hosts for b in self.hosts if (a in inside) != (b in inside)]

    def split(self, side: Iterable[str], one_way: bool = False) -> None:
        """Cut `side` off from the other hosts; one way: it is heard, but hears nothing."""
        inside = set(side)
        how = "split, one way" if one_way else "split"
        self.scheduler.note(f"{how}: {self._names(inside)} from {self._names(self.hosts.keys() - inside)}")
        self.network.cut.update(link for link in self.links(inside) if not one_way or link[1] in inside)

    @staticmethod
    def _names(nodes: Iterable[str]) -> str:
        return ", ".join(sorted(nodes))

    def heal(self) -> None:
        """End all network faults."""
        self.scheduler.note("the network heals")
        self.network.conditions = Conditions()
        self.network.slow.clear()
        self.network.unclog()
        self.reconnect(set(self.network.cut))

    def reconnect(self, links: Iterable[Link]) -> None:
        """Links work again; connections that hung on them break, and are made anew."""
        healed = self.network.cut.intersection(links)
        self.network.cut -= healed
        for sender, to in sorted(healed):
            if self.hosts[sender].up:
                self.hosts[sender].break_links(to)

    # use

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.scheduler.run_until(self.scheduler.now + seconds)

    def submit(self, client: str, node: str, call: ClientRequest, respond: Respond) -> None:
        """Hand a client's request to a node; None is the reply when the connection broke."""
        self.requests(client, node, [(call, respond)])

    def requests(
        self, client: str, node: str, requests: Sequence[tuple[ClientRequest, Respond]]
    ) -> Callable[[], None]:
        """Requests that arrive together; to be called when the client gives up what is not answered."""
        if watch := self.watch:
            requests = [(call, watch(client, node, call, respond)) for call, respond in requests]
        self.clients.setdefault(client)
        requests = [(call, partial(self._replied, client, respond)) for call, respond in requests]
        self.hosts[node].requests.take(requests)
        return partial(self.hosts[node].requests.cancel, requests)

    def _replied(self, client: str, respond: Respond, reply: Reply | None) -> None:
        unread = self.clients[client]
        if unread is None:
            respond(reply)
        else:
            self.counts["replies unread for a while"] += 1
            unread.append(partial(respond, reply))

    def stop_reading(self, client: str) -> None:
        """A client reads no replies until told to."""
        if self.clients[client] is None:
            self.clients[client] = []

    def read_again(self, client: str) -> None:
        """A client reads all that has waited for it."""
        unread, self.clients[client] = self.clients[client], None
        for respond in unread or ():
            self.scheduler.after(0.0, respond)

    def call(
        self, node: str, call: ClientRequest, seconds: float = 30.0, client: str = "client"
    ) -> Reply | None:
        """A request to a node, and time until its reply; None when the connection broke or time is over."""
        replies: list[Reply | None] = []
        self.submit(client, node, call, replies.append)
        self.scheduler.run_until(self.scheduler.now + seconds, lambda: bool(replies))
        return replies[0] if replies else None

    # looking at it

    @property
    def clocks_are_right(self) -> bool:
        """Whether no host's clock is wrong now; one that was wrong once hardly ever is right again."""
        return not any(host.machine.clock_error_ms for host in self.hosts.values())

    def replicas(self, bucket: str, key: bytes) -> tuple[str, ...]:
        """The nodes that should hold a key."""
        ring = self.state.ring
        return preference_list(ring, ring.partition(bucket, key), self.state.bucket(bucket).n)

    def stored(self, node: str, bucket: str, key: bytes) -> EncodedVersion | None:
        """What a host that is up holds of a key; raises Corruption."""
        place = BucketName(bucket), UserKey(key)
        found = self.hosts[node].engine.get(internal_key(*place))
        return None if found is None else EncodedVersion(found)

    def roots_equal(self) -> bool:
        """Whether all hosts are up and know their trees, and those that replicas share have equal roots."""
        ring = self.state.ring
        trees = {name: host.node.base.trees for name, host in self.hosts.items() if host.node}
        if len(trees) < len(self.hosts) or any(each.building for each in trees.values()):
            return False
        some = next(iter(trees.values()))
        return all(
            len({trees[node].node(TreeNode(partition, n, ROOT)) for node in nodes}) == 1
            for partition in range(ring.partitions)
            for n in some.ns
            if (nodes := preference_list(ring, partition, n))
        )

    def trees_match_disks(self) -> bool:
        """Whether the trees of every host are those that its disk gives."""
        for host in self.hosts.values():
            assert host.node is not None
            rebuilt = Trees(self.state)
            while rebuilt.building:
                rebuilt.build(host.engine.scan, 1_000_000)
            for partition in range(rebuilt.partitions):
                for name in (TreeNode(partition, n, i) for n in rebuilt.ns for i in range(NODES)):
                    if rebuilt.node(name) != host.node.base.trees.node(name):
                        return False
        return True

    def connected(self) -> bool:
        """Whether all hosts are up and have connections to each other."""
        hosts = self.hosts.values()
        return all(host.up and all(each.queue.open for each in host.shell.links.all()) for host in hosts)

    def settled(self) -> bool:
        """Whether all hosts are up and connected, see each other alive, and keep no hint."""
        statuses = [host.shell.status() for host in self.hosts.values() if host.node]
        return self.connected() and all(
            not status.hints and all(member.alive for member in status.members) for status in statuses
        )
