"""Faults, one after the other and at times several at once, each for a while."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from kvstore.lsm import Fate
from kvstore.sim.cluster import LARGE, USUAL, SimulatedCluster
from kvstore.sim.damage import Damage
from kvstore.sim.host import Host
from kvstore.sim.links import Stream
from kvstore.sim.network import SMALL_MESSAGE, Link, Weather

_HOUR_MS = 3_600_000
_DAMAGE = ("bit flip", "damaged log", "wipe")
_TRIES = 40
_LEAST_HOSTS = {
    "crash of most": 3,
    "split": 2,
    "one way split": 2,
    "clogged links": 2,
    "lost frames": 2,
    "repeated frames": 2,
    "late frames": 2,
    "wrong frames": 2,
    "slow node": 2,
    "broken links": 2,
    "half-open links": 2,
    "unread streams": 2,
}
"""In smaller clusters these would do nothing."""
_NEXT_TRY = 0.25

Action = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Faults:
    """Kinds of faults that can be switched off: damage to disks, where it is fair (kvstore.sim.damage)."""

    bit_flips: bool = True
    """Bits of tables, logs and manifests flip."""
    wipes: bool = True
    """A disk is replaced by an empty one."""


class Nemesis:
    """Injects faults until told to stop; `counts` has them by kind."""

    def __init__(self, cluster: SimulatedCluster, rng: random.Random, faults: Faults | None = None) -> None:
        self._cluster = cluster
        self._rng = rng
        self._stopped = False
        self.counts: Counter[str] = Counter()
        some = len(cluster.hosts)
        self._kinds = [kind for kind in kinds(faults or Faults()) if some >= _LEAST_HOSTS.get(kind, 1)]
        self._damage = Damage(cluster)

    def start(self) -> None:
        """Begin."""
        self._later(self._rng.uniform(0.2, 1.5), self._strike)

    def stop(self) -> None:
        """End every fault, start every host, and do no more harm."""
        self._stopped = True
        self._cluster.heal()
        self._usual_versions()
        self._all_clients_read()
        for host in self._cluster.hosts.values():
            host.disk.crash_at = None
            host.disk.full = host.disk.broken = False
            host.slow_down()
            host.how_disk_works.mend()
            host.drift()
            host.read_again()
            host.resume()
            for stream in host.links.all() if host.up else ():
                stream.remember()
        for host in self._cluster.hosts.values():
            self._damage.start(host)

    def _strike(self) -> None:
        name = self._rng.choice(self._kinds)
        if name in _DAMAGE:
            self._when_fair(name, self._some_host(), _TRIES)
        else:
            self._do(name)
        self._later(self._rng.uniform(0.3, 2.5), self._strike)

    def _do(self, name: str, *host: Host) -> None:
        self.counts[name] += 1
        self._cluster.scheduler.note(f"fault: {name}")
        getattr(self, "_" + name.replace(" ", "_").replace("-", "_"))(*host)

    def _when_fair(self, name: str, host: Host, tries: int) -> None:
        """Damage a disk as soon as that is fair, if it is within a few seconds."""
        fair = self._damage.may_flip if name == "bit flip" else self._damage.may_lose
        if fair(host):
            self._do(name, host)
        elif tries:
            self._later(_NEXT_TRY, partial(self._when_fair, name, host, tries - 1))

    def _later(self, delay: float, action: Action) -> None:
        def unless_stopped() -> None:
            if not self._stopped:
                action()

        self._cluster.scheduler.after(delay, unless_stopped)

    def _for(self, least: float, most: float, end: Action) -> None:
        self._later(self._rng.uniform(least, most), end)

    def _some_host(self) -> Host:
        return self._cluster.hosts[self._rng.choice(sorted(self._cluster.hosts))]

    def _shuffled(self) -> list[str]:
        nodes = sorted(self._cluster.hosts)
        self._rng.shuffle(nodes)
        return nodes

    def _restart(self, host: Host) -> None:
        self._cluster.restart(host.name)

    # crashes

    def _stop(self, node: str) -> None:
        fate = self._rng.choice(list(Fate))
        if self._cluster.hosts[node].up:
            self.counts[f"unsynced data at a crash: {fate.value}"] += 1
        self._cluster.crash(node, fate)

    def _crash(self) -> None:
        host = self._some_host()
        self._stop(host.name)
        self._for(0.1, 6.0, partial(self._restart, host))

    def _crash_in_the_disk(self) -> None:
        """At one of its next changing calls to the disk, whichever that is; it may tear a write."""
        host = self._some_host()
        host.disk.crash_at = host.disk.mutations + self._rng.randrange(1, 40)
        host.disk.torn = self._rng.random()
        self._for(1.0, 6.0, partial(self._no_more_crash_in_the_disk, host))

    def _no_more_crash_in_the_disk(self, host: Host) -> None:
        host.disk.crash_at = None
        self._restart(host)

    def _crash_of_all(self) -> None:
        for node in sorted(self._cluster.hosts):
            self._stop(node)
            self._for(0.1, 2.0, partial(self._cluster.restart, node))

    def _crash_of_most(self) -> None:
        """All but two, for long enough that the two know it: what sloppy quorums are for."""
        for node in self._shuffled()[2:]:
            self._stop(node)
            self._for(4.0, 12.0, partial(self._cluster.restart, node))

    def _pause(self) -> None:
        """Mostly short; now and then up to a minute, which is longer than every timeout."""
        self._some_host().pause(self._rng.uniform(0.2, self._rng.choice((1.0, 5.0, 5.0, 60.0))))

    # the network

    def _split(self) -> None:
        nodes = self._shuffled()
        self._cut(self._cluster.links(nodes[: self._rng.randrange(1, len(nodes))]), 10.0)

    def _one_way_split(self) -> None:
        """One node is heard, but hears nothing; or hears all, and is not heard."""
        side = [self._some_host().name]
        inward = self._rng.random() < 0.5
        self._cut([link for link in self._cluster.links(side) if (link[1] in side) == inward], 6.0)

    def _cut(self, links: Iterable[Link], most: float) -> None:
        cut = set(links)
        self._cluster.network.cut |= cut
        self._for(0.5, most, partial(self._cluster.reconnect, cut))

    def _clogged_links(self) -> None:
        nodes = self._shuffled()
        links = self._cluster.links(nodes[:1])
        for sender, to in self._rng.sample(links, self._rng.randrange(1, len(links) + 1)):
            self._cluster.network.clog(sender, to)
        self._for(0.5, 8.0, self._cluster.network.unclog)

    def _lost_frames(self) -> None:
        self._weather("loss", self._rng.uniform(0.01, 0.3), 5.0)

    def _repeated_frames(self) -> None:
        self._weather("repeat", self._rng.uniform(0.01, 0.5), 5.0)

    def _late_frames(self) -> None:
        """Each as late as it likes, so that they also arrive in another order."""
        self._weather("most_delay", self._rng.choice((0.01, 0.1, 1.0)), 5.0)

    def _wrong_frames(self) -> None:
        """Well formed, with a value that should never be sent: a peer with a defect."""
        self._weather("wrong", self._rng.choice((0.01, 0.1, 0.5)), 5.0)

    def _large_versions(self) -> None:
        """Clients write values of about the sizes at which something has a limit or overflows."""
        self._cluster.value_sizes = LARGE
        self._for(0.5, 4.0, self._usual_versions)

    def _usual_versions(self) -> None:
        self._cluster.value_sizes = USUAL

    def _weather(self, kind: str, how_bad: float, most: float) -> None:
        weather = self._cluster.network.weather
        setattr(weather, kind, how_bad)
        self._for(0.5, most, partial(setattr, weather, kind, getattr(Weather(), kind)))

    def _slow_node(self) -> None:
        """All that one node sends and is sent takes many times as long: what hedges are for."""
        node = self._some_host().name
        self._cluster.network.slow[node] = self._rng.choice((10.0, 50.0, 200.0))
        self._for(0.5, 6.0, partial(self._as_fast_as_others, node))

    def _as_fast_as_others(self, node: str) -> None:
        self._cluster.network.slow.pop(node, None)

    # the streams between nodes, and to clients

    def _broken_links(self) -> None:
        """Some connections break: what waits on them is lost, and they are made anew."""
        for stream in self._some_streams():
            stream.break_off()

    def _half_open_links(self) -> None:
        """Some connections are forgotten on their way: only an unanswered keepalive tells."""
        for stream in self._some_streams():
            stream.forget()

    def _some_streams(self) -> list[Stream]:
        """One or both of those to one, some or all peers of a host that is up."""
        host = self._some_host()
        peers = [node for node in self._shuffled() if node != host.name]
        streams = self._rng.choice((1, 2))
        peers = peers[: self._rng.randrange(1, len(peers) + 1)]
        return [stream for peer in peers if host.up for stream in host.links.streams(peer)[:streams]]

    def _unread_streams(self) -> None:
        """A node reads nothing of what some or all of its peers send it: flow control holds them back."""
        host = self._some_host()
        peers = [node for node in self._shuffled() if node != host.name]
        host.deaf_to = frozenset(peers[: self._rng.randrange(1, len(peers) + 1)])
        self._for(0.5, 8.0, host.read_again)

    def _unread_replies(self) -> None:
        """A client reads no replies for a while, perhaps until it has given their requests up."""
        if clients := sorted(self._cluster.clients):
            client = self._rng.choice(clients)
            self._cluster.stop_reading(client)
            self._for(0.5, 10.0, partial(self._cluster.read_again, client))

    def _all_clients_read(self) -> None:
        for client in sorted(self._cluster.clients):
            self._cluster.read_again(client)

    def _small_messages(self) -> None:
        """From now on a frame must not be much larger than what a client may write."""
        network = self._cluster.network
        network.limits = replace(network.limits, message=SMALL_MESSAGE)

    # disks and clocks

    def _slow_disk(self) -> None:
        host = self._some_host()
        host.slow_down(self._rng.choice((0.02, 0.2, 1.0)))
        self._for(0.5, 4.0, host.slow_down)

    def _full_disk(self) -> None:
        """No space for anything new, also for a node that starts; then there is space again."""
        host = self._some_host()
        host.disk.full, host.disk.torn = True, self._rng.random()
        self._for(0.5, 6.0, partial(self._space_again, host))

    def _space_again(self, host: Host) -> None:
        host.disk.full = False
        self._restart(host)

    def _failing_disk(self) -> None:
        """Every change fails with EIO: the first sync ends the process, and recovery decides."""
        host = self._some_host()
        host.disk.broken = True
        self._for(0.2, 3.0, partial(self._working_again, host))

    def _working_again(self, host: Host) -> None:
        host.disk.broken = False
        self._restart(host)

    def _busy_disk(self) -> None:
        """The more is under way on a disk, the longer all of it takes."""
        how = self._some_host().how_disk_works
        how.load = self._rng.choice((5.0, 50.0, 500.0))
        self._for(0.5, 6.0, partial(setattr, how, "load", 0.0))

    def _stalled_disk(self) -> None:
        """Nothing on a disk comes to its end for a while."""
        self._some_host().how_disk_works.stalled_until = self._cluster.scheduler.now + self._rng.uniform(
            0.5, 6.0
        )

    def _dying_workers(self) -> None:
        """The process that flushes or compacts dies in its next jobs, in the middle or before it answers."""
        self._some_host().how_disk_works.deaths = self._rng.randrange(1, 5)

    def _hanging_workers(self) -> None:
        """The process that flushes or compacts stops answering: it is killed when the patience is over."""
        self._some_host().how_disk_works.hangs = self._rng.randrange(1, 3)

    def _clock_drift(self) -> None:
        """The monotonic clock of a node, and with it all its timers, runs faster or slower than others."""
        host = self._some_host()
        host.drift(self._rng.uniform(0.9, 1.1))
        self._for(1.0, 15.0, host.drift)

    def _clock_jump(self) -> None:
        self._some_host().clock_error_ms = self._rng.randrange(-_HOUR_MS, _HOUR_MS)

    def _bit_flip(self, host: Host) -> None:
        """One bit of one table; a host that has no table keeps its bits. Some find it by starting again."""
        if tables := [name for name in host.disk.list("data") if name.endswith(".sst")]:
            path = f"data/{self._rng.choice(tables)}"
            self._damage.flip(host, path, self._rng.random(), self._rng.randrange(8))
            if self._rng.random() < 0.5:
                self._stop(host.name)
                self._for(0.1, 3.0, partial(self._restart, host))

    def _damaged_log(self, host: Host) -> None:
        """One bit of a log or manifest, of a host that is down: it starts, or refuses to and is wiped."""
        self._stop(host.name)
        logs = [name for name in host.disk.list("data") if not name.endswith((".sst", "LOCK"))]
        path = f"data/{self._rng.choice(logs)}"
        if host.disk.size(path):
            self._damage.flip_in_log(host, path, self._rng.random(), self._rng.randrange(8))
        self._for(0.1, 3.0, partial(self._damage.start, host))

    def _wipe(self, host: Host) -> None:
        self._stop(host.name)
        self._damage.wipe(host)
        self._for(0.1, 3.0, partial(self._restart, host))


def kinds(faults: Faults) -> tuple[str, ...]:
    """The kinds of faults that are on, by the names that a report has."""
    switched = {"bit flip": faults.bit_flips, "damaged log": faults.bit_flips, "wipe": faults.wipes}
    return (
        "crash",
        "crash in the disk",
        "crash of all",
        "crash of most",
        "pause",
        "split",
        "one way split",
        "clogged links",
        "lost frames",
        "repeated frames",
        "late frames",
        "wrong frames",
        "large versions",
        "slow node",
        "broken links",
        "half-open links",
        "unread streams",
        "unread replies",
        "small messages",
        "slow disk",
        "busy disk",
        "stalled disk",
        "full disk",
        "failing disk",
        "dying workers",
        "hanging workers",
        "clock jump",
        "clock drift",
        *(name for name, on in switched.items() if on),
    )


EFFECTS = (
    "connections broken",
    "frames of a quarter of their limit or more",
    "frames refused by a later life",
    "frames sent into a half-open connection",
    "keepalives unanswered",
    "messages dropped",
    "replies unread for a while",
    "requests told that nothing was sent",
    "waits for a reader",
    "waits for a stalled disk",
    "workers that died",
    "workers that hung",
)
"""What faults must have led to, as counted inside: some of them may strike where nothing is under way."""
