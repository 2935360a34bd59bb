"""How the failure detector does in clusters of 10, 100 and 1,000 members: seconds, mistakes, bytes.

`python -m tests.property.gossip_at_size [MEMBERS ...]` prints the table of docs/gossip.md.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

from kvstore.gossip import FailureDetector, Output, Send, StatusChanged
from kvstore.protocol.gossip import Ping, Update
from kvstore.wire.peer import encode_frame
from tests.property.gossip_network import ALIVE, DEAD, SETTINGS, SUSPECT, Host, Network

LIMIT = 120.0
"""Virtual seconds after which a change that not everyone has heard of counts as lost."""


class LargeNetwork(Network):
    """Members that have long agreed on everything. Counts what they send, as it is encoded for the wire."""

    def __init__(self, nodes: int, seed: int) -> None:
        super().__init__(nodes, seed)
        self.messages = 0
        self.bytes = 0
        for host in self.hosts.values():
            host.incarnation = (
                -1
            )  # at the incarnation that all assume of each other, there is nothing to spread
        self.loss = 1.0
        self.start_all()
        self.loss = 0.0
        self.run(2 * SETTINGS.probe_interval)

    def record(self, host: Host, output: Output) -> None:
        if isinstance(output, Send):
            self.messages += 1
            self.bytes += len(encode_frame([output.message]))
        elif isinstance(output, StatusChanged):
            self.trace.append((self.now, host.name, output))

    def sent(self, seconds: float) -> tuple[float, float]:
        """Bytes and messages that a member sends each second, over the next `seconds`."""
        messages, sent = self.messages, self.bytes
        self.run(seconds)
        share = seconds * len(self.running())
        return (self.bytes - sent) / share, (self.messages - messages) / share

    def until_known(self, node: str, dead: bool) -> list[float]:
        """Seconds from now until each of the others holds `node` for DEAD, or ALIVE; the first one first."""
        start, left = self.now, set(self.running()) - {node}
        left = {name for name in left if (self.detector(name).status(node) is DEAD) != dead}
        since, known = len(self.trace), []

        def done() -> bool:
            nonlocal since
            for when, at, change in self.changes_from(since):
                if change.node == node and (change.new is DEAD) == dead and at in left:
                    left.remove(at)
                    known.append(when - start)
            since = len(self.trace)
            return not left

        took = self.run_until(done, LIMIT)
        assert took < LIMIT, f"{len(left)} of {len(self.hosts)} members have not heard of {node}"
        return known

    def resume_slowly(self, name: str) -> None:
        """The loop of a stalled process goes on; it handles what waits in its queue a little later."""
        host = self.hosts[name]
        host.stalled = False
        queue, host.queue = host.queue, []
        self._on_timer(host)
        self.run(0.2)
        for sender, message in queue:
            self._receive(host, sender, message)

    def changes_from(self, index: int) -> list[tuple[float, str, StatusChanged]]:
        return [(t, at, o) for t, at, o in self.trace[index:] if isinstance(o, StatusChanged)]

    def mistakes(self, since: float, guilty: str = "") -> Mistakes:
        """What was said since then of members that ran all the time, `guilty` excepted."""
        told = [(at, o) for _, at, o in self.changes(since) if o.node != guilty]
        dead = [(at, o.node) for at, o in told if o.new is DEAD]
        suspected = [o.node for _, o in told if o.new is SUSPECT]
        return Mistakes(len(suspected), len({node for _, node in dead}), len(dead))


@dataclass(frozen=True)
class Mistakes:
    suspicions: int
    killed: int
    """Members that anybody declared dead although they ran."""
    verdicts: int
    """How many times, by all observers together."""


@dataclass
class Detection:
    """Over several crashes: seconds until the first member knows, until each does, until all do."""

    first: list[float] = field(default_factory=list)
    each: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    returned: list[float] = field(default_factory=list)
    """Seconds from a restart until all know of it."""
    noise: list[float] = field(default_factory=list)
    """Bytes of each member and second while a crash and a return spread."""


def crashes(network: LargeNetwork, count: int) -> Detection:
    """Kill members silently, one after another; each returns once all know."""
    found = Detection()
    for i in range(count):
        node = network.rng.choice(list(network.hosts))
        network.run(network.rng.random() * SETTINGS.probe_interval)
        before, start = network.bytes, network.now
        network.crash(node)
        known = network.until_known(node, dead=True)
        found.first.append(known[0])
        found.each += known
        found.last.append(known[-1])
        network.start(node)
        back = network.until_known(node, dead=False)
        found.returned.append(back[-1] if back else 0.0)
        found.noise.append((network.bytes - before) / (network.now - start) / len(network.hosts))
        network.run(5.0 if i + 1 < count else 0.0)
    return found


def under_loss(network: LargeNetwork, loss: float, seconds: float) -> tuple[Mistakes, float]:
    """Everyone runs, and a share of all messages is lost; also the bytes of a member and second."""
    start, network.loss = network.now, loss
    sent, _ = network.sent(seconds)
    network.loss = 0.0
    return network.mistakes(start), sent


def with_a_stalled_loop(network: LargeNetwork, pauses: Sequence[float]) -> Mistakes:
    """The loop of one member stands still, again and again: is anybody else blamed?"""
    start = network.now
    for pause in pauses:
        network.stall("n1")
        network.run(pause)
        network.resume_slowly("n1")
        network.run(0.3)
    network.run(10.0)
    return network.mistakes(start, guilty="n1")


def cost_of_a_message(nodes: int, suspects: int = 0) -> float:
    """Microseconds that one Ping with an update takes a detector, in the quickest of several rounds.

    `suspects`: of so many members this node's own probe has failed.
    """
    peers = [f"n{i}" for i in range(2, nodes + 1)]
    detector = FailureDetector("n1", peers, 1, SETTINGS, random.Random(nodes))
    detector.start(100.0)
    doubtful, peers = peers[:suspects], peers[suspects:]
    for node in doubtful:
        detector.on_link_lost(node, 100.0)
    while detector.next_deadline() <= 100.6:
        detector.on_timer(detector.next_deadline())
    assert {row.node for row in detector.members() if row.status is SUSPECT} >= set(doubtful)
    rng, rounds = random.Random(1), []
    for _ in range(20):
        pings = [(peer, Ping(1, "n1", (Update(peer, ALIVE, 0),))) for peer in rng.choices(peers, k=200)]
        start = time.perf_counter()
        for peer, ping in pings:
            detector.on_message(peer, ping, 100.6)
        rounds.append((time.perf_counter() - start) / len(pings) * 1e6)
    return min(rounds)


def p99(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[98]


def report(nodes: int) -> str:
    """One block of the table."""
    count = {10: 100, 100: 50}.get(nodes, 10)
    quiet, messages = LargeNetwork(nodes, 1).sent(60.0 if nodes < 1000 else 20.0)
    found = crashes(LargeNetwork(nodes, 2), count)
    lossy, lossy_bytes = under_loss(LargeNetwork(nodes, 3), 0.05, 600.0 if nodes < 1000 else 30.0)
    stalled = with_a_stalled_loop(LargeNetwork(nodes, 4), [1.0] * 10 + [20.0])
    lines = [
        f"{nodes} members, {count} crashes",
        f"  first detection: median {median(found.first):.1f} s, worst {max(found.first):.1f} s",
        f"  a member knows:  median {median(found.each):.1f} s, p99 {p99(found.each):.1f} s",
        f"  all know:        median {median(found.last):.1f} s, worst {max(found.last):.1f} s",
        f"  a return:        median {median(found.returned):.2f} s, worst {max(found.returned):.2f} s",
        f"  5% loss: {lossy}, {lossy_bytes:.0f} bytes/s of a member",
        f"  one stalled loop: {stalled}",
        f"  quiet: {quiet:.0f} bytes/s in {messages:.1f} messages/s of a member",
        f"  while a crash and a return spread: {median(found.noise):.0f} bytes/s of a member",
        f"  one message: {cost_of_a_message(nodes):.1f} us",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    for size in [int(argument) for argument in sys.argv[1:]] or [10, 100, 1000]:
        print(report(size), flush=True)
