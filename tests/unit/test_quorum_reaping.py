"""Each condition of reaping by itself: without any one of them a deleted value could come back.

docs/anti-entropy.md argues why each is needed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvstore.config import AntiEntropySettings
from kvstore.node.outbox import PeerMessage
from kvstore.node.settings import NodeSettings
from kvstore.quorum.messages import Candidate, Delete, Put, ReapCheck, ReplicaWrite
from kvstore.quorum.reap import Reaper
from kvstore.ring import data_key, token
from kvstore.versions import Dot, Sibling, Version, digest, encode_version
from tests.unit.quorum_cluster import Cluster

KEY = b"user:1"
INTERNAL = data_key(token("carts", KEY), "carts", KEY)
REAP_AGE = 4.0


def quiet(reap_interval: float = float("inf")) -> NodeSettings:
    """Nothing runs by itself but, when it is asked for, reaping."""
    return NodeSettings(
        anti_entropy=AntiEntropySettings(float("inf"), reap_interval=reap_interval, reap_age=REAP_AGE)
    )


def deleted(settings: NodeSettings, nodes: int = 3) -> Cluster:
    """A cluster in which one key is a tombstone, on all its replicas and durable."""
    cluster = Cluster(nodes, settings=settings)
    cluster.stored_reply("n1", Put("carts", KEY, b"v", w=3))
    cluster.stored_reply("n1", Delete("carts", KEY, w=3))
    return cluster


def candidate(cluster: Cluster, node: str) -> Candidate:
    return Candidate(INTERNAL, digest(cluster.stored(node, "carts", KEY) or b""))


def confirms(cluster: Cluster, node: str, asked: Candidate) -> bool:
    return cluster.hosts[node].node._reaper.confirm([asked]) == (0,)


def under_way(cluster: Cluster, node: str) -> None:
    cluster.passes = lambda sender, to, message: not isinstance(message, ReplicaWrite)
    cluster.start(node, Put("carts", KEY, b"again"))
    # the version is here and durable as it was: only the operation speaks against it
    tombstone = cluster.stored("n3" if node != "n3" else "n2", "carts", KEY)
    host = cluster.hosts[node]
    host.node._coordinator.replica.replace(
        INTERNAL, cluster.stored(node, "carts", KEY) or b"", tombstone or b""
    )
    host.sync_wanted = True
    cluster.run()


def exchanging(cluster: Cluster, node: str) -> None:
    partition = cluster.state.ring.partition("carts", KEY)
    cluster.hosts[node].node._anti_entropy._exchanging = partition


def not_durable(cluster: Cluster, node: str) -> None:
    cluster.stuck = {node}
    host = cluster.hosts[node]
    stored = cluster.stored(node, "carts", KEY) or b""
    host.node._coordinator.replica.replace(INTERNAL, stored, stored)


def hinted(cluster: Cluster, node: str) -> None:
    other = "n2" if node != "n2" else "n3"
    dot = Dot("a", 1)
    older = encode_version(Version((dot,), (Sibling(dot, b"old"),)))
    cluster.hosts[node].node._coordinator.store(INTERNAL, older, other)


def stood_still(cluster: Cluster, node: str) -> None:
    reaper = cluster.hosts[node].node._reaper
    reaper._seen -= 60.0
    reaper._look_at_clocks()


def visible(cluster: Cluster, node: str) -> None:
    cluster.stored_reply(node, Put("carts", KEY, b"new", w=3))


AGAINST: list[Callable[[Cluster, str], None]] = [
    under_way,
    exchanging,
    not_durable,
    hinted,
    stood_still,
    visible,
]


@pytest.mark.parametrize("speak", AGAINST, ids=lambda each: each.__name__)
@pytest.mark.parametrize("node", ["n1", "n2"])
def test_a_replica_does_not_confirm_while_something_speaks_against_it(
    speak: Callable[[Cluster, str], None], node: str
) -> None:
    cluster = deleted(quiet())
    asked = candidate(cluster, node)
    assert confirms(cluster, node, asked)
    speak(cluster, node)
    if speak is visible:
        asked = candidate(cluster, node)
    assert not confirms(cluster, node, asked)


def test_a_replica_confirms_only_exactly_what_it_holds() -> None:
    cluster = deleted(quiet())
    assert not confirms(cluster, "n1", Candidate(INTERNAL, bytes(16)))
    gone = Candidate(data_key(token("carts", b"nothing"), "carts", b"nothing"), digest(b""))
    assert not confirms(cluster, "n1", gone), "who has nothing cannot say that it has the tombstone"


def test_a_member_that_is_no_replica_confirms_unless_it_keeps_a_hint() -> None:
    cluster = deleted(quiet(), 5)
    (other, *_) = [node for node in cluster.hosts if node not in cluster.replicas("carts", KEY)]
    asked = candidate(cluster, cluster.replicas("carts", KEY)[0])
    assert confirms(cluster, other, asked)
    hinted(cluster, other)
    assert not confirms(cluster, other, asked)


def test_all_members_are_asked_twice_and_a_reap_age_lies_between() -> None:
    cluster = deleted(quiet(reap_interval=2.0), 5)
    asked: dict[str, list[float]] = {}

    def note(_: str, to: str, message: PeerMessage) -> bool:
        if isinstance(message, ReapCheck) and not message.commit:
            asked.setdefault(to, []).append(cluster.now)
        return True

    cluster.passes = note
    cluster.move(15.0)
    assert all(cluster.stored(node, "carts", KEY) is None for node in cluster.hosts)
    first = cluster.replicas("carts", KEY)[0]
    assert set(asked) == set(cluster.hosts) - {first}
    assert all(len(times) == 2 and times[1] - times[0] >= REAP_AGE for times in asked.values())


@pytest.mark.parametrize("round_", [1, 2, 3], ids=["first", "second", "when it deletes"])
@pytest.mark.parametrize("member", range(5))
def test_one_member_that_does_not_confirm_in_a_round_keeps_the_tombstone(
    round_: int, member: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the replicas that delete, one that disagrees keeps its own; of the members, all of them."""
    cluster = deleted(quiet(reap_interval=2.0), 5)
    node = sorted(cluster.hosts)[member]
    if round_ == 3 and node not in cluster.replicas("carts", KEY):
        pytest.skip("it is not asked to delete anything")
    reaper, confirm, calls = cluster.hosts[node].node._reaper, Reaper.confirm, [0]

    def disagree(self: Reaper, candidates: list[Candidate]) -> tuple[int, ...]:
        if self is reaper:
            calls[0] += 1
            if calls[0] >= round_:
                return ()
        return confirm(self, candidates)

    monkeypatch.setattr(Reaper, "confirm", disagree)
    cluster.move(60.0)
    assert calls[0] >= round_
    kept = [each for each in cluster.replicas("carts", KEY) if cluster.stored(each, "carts", KEY)]
    assert node in kept if round_ == 3 else len(kept) == 3
