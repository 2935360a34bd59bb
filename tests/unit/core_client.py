"""What the tests of the client's core share: a clock by hand, nodes that answer when told, callers."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace

from kvstore.client.core.calls import Calls
from kvstore.client.core.client import ClientCore
from kvstore.client.core.waiter import Answer
from kvstore.config import BucketSettings
from kvstore.errors import KVError
from kvstore.protocol.client import ClientRequest, Failed, Found, Reply, Stored, Success
from kvstore.ring import ClusterState, initial_state, parse_members
from kvstore.versions import NO_CONTEXT
from kvstore.wire.client import call_from_wire
from kvstore.wire.session import decode_calls
from tests.plain import Put

STORED = Stored(NO_CONTEXT, 1)
FOUND = Found((), NO_CONTEXT)
PUT = Put("b", b"k", b"v", timeout=5.0)


def state_of(nodes: int = 3) -> ClusterState:
    members = parse_members(",".join(f"n{i}=h:{i}" for i in range(1, nodes + 1)))
    return initial_state("test", members, partitions=16, buckets=[BucketSettings("b")])


class Caller:
    """Waits for a reply: see Waiter."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.has_left = False

    def done(self) -> bool:
        return self.has_left or bool(self.answers)

    def set_result(self, result: Success, /) -> None:
        self.answers.append(result)

    def set_exception(self, exception: KVError, /) -> None:
        self.answers.append(exception)

    @property
    def answer(self) -> Answer:
        (answer,) = self.answers
        return answer


class World:
    """A core, what it has asked of its shell, and the shell's clock."""

    def __init__(self, nodes: int = 3, connected: bool = True) -> None:
        self.now = 100.0
        self.due = float("inf")
        self.fetched: list[list[str]] = []
        self.flushed: list[str] = []
        self.silent: list[str] = []
        self.left: list[str] = []
        self.connections: list[Calls] = []
        self.sent: defaultdict[str, list[tuple[int, ClientRequest]]] = defaultdict(list)
        self.state = state_of(nodes)
        self.replicas = self.state.ring.replica_lists[self.state.ring.partition("b", b"k")]
        self.core = ClientCore(self.state, self, random.Random(1).uniform, self.now)
        for calls in self.connections if connected else ():
            self.core.on_connected(calls, self.state, self.now)

    # the port

    def connect(self, calls: Calls) -> None:
        self.connections.append(calls)

    def disconnect(self, calls: Calls) -> None:
        self.left.append(calls.address)

    def wake(self, calls: Calls) -> None:
        pass

    def break_off(self, calls: Calls) -> None:
        self.silent.append(calls.address)

    def set_timer(self, when: float) -> None:
        self.due = when

    def fetch_state(self, addresses: list[str]) -> None:
        self.fetched.append(addresses)

    # what happens

    def begin(self, request: ClientRequest = PUT) -> Caller:
        caller = Caller()
        self.core.begin(request, caller, self.now)
        return caller

    def calls(self, address: str) -> Calls:
        return self.core.routing.nodes[address]

    def flush(self) -> list[str]:
        """Send what can be sent; to whom."""
        self.flushed = []
        for address, calls in self.core.routing.nodes.items():
            while frame := calls.take_frame(self.now):
                self.flushed.append(address)
                _, bodies, puts = decode_calls(frame)
                self.sent[address] += [*((body.id, call_from_wire(body)) for body in bodies), *puts]
        return self.flushed

    def flush_one(self) -> str:
        """As `flush`, to one node and no other."""
        (address,) = self.flush()
        return address

    def reply(self, address: str, reply: Reply) -> None:
        """Answer all that was sent there."""
        numbered, self.sent[address] = self.sent[address], []
        self.calls(address).answer([(number, reply) for number, _ in numbered], self.now)

    def reply_to(self, address: str, at: int, error: KVError) -> None:
        """Refuse one of the calls that were sent there."""
        number, _ = self.sent[address].pop(at)
        self.calls(address).answer([(number, Failed(error))], self.now)

    def fail(self, address: str, error: KVError) -> None:
        self.reply(address, Failed(error))

    def without(self, node: str) -> ClusterState:
        """The next cluster state, of which a node is no member."""
        lists = tuple(tuple(n for n in names if n != node) for names in self.state.ring.replica_lists)
        members = tuple(member for member in self.state.members if member.node != node)
        return replace(
            self.state, epoch=2, members=members, ring=replace(self.state.ring, replica_lists=lists)
        )

    def lose(self, address: str) -> None:
        self.sent[address].clear()
        self.core.on_lost(self.calls(address), "it broke", self.now)

    def advance(self, seconds: float) -> None:
        """Let time pass, with all timers."""
        end = self.now + seconds
        while self.due <= end:
            self.now = max(self.now, self.due)
            self.due = float("inf")
            self.core.on_timer(self.now)
        self.now = end
