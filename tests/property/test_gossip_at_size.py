"""The figures of docs/gossip.md, within bounds, for as many members as a few seconds allow."""

from __future__ import annotations

import pytest

from tests.property.gossip_at_size import (
    LargeNetwork,
    Mistakes,
    cost_of_a_message,
    crashes,
    under_loss,
    with_a_stalled_loop,
)

SIZES = [10, 100]


@pytest.mark.parametrize(("nodes", "first", "last"), [(10, 5.0, 5.5), (100, 7.5, 8.0)])
def test_a_crash_is_noticed_by_all_soon_after_the_first(nodes: int, first: float, last: float) -> None:
    found = crashes(LargeNetwork(nodes, 2), 4)
    assert max(found.first) < first
    assert max(found.last) < last
    assert max(found.returned) < 0.1


def test_a_quiet_member_sends_the_same_in_a_cluster_ten_times_larger() -> None:
    small, large = (LargeNetwork(nodes, 1).sent(20.0) for nodes in SIZES)
    assert large[0] < 1.3 * small[0]
    assert large[1] < 1.1 * small[1]


def test_the_dead_cost_a_member_no_more_when_they_are_many() -> None:
    sent = []
    for dead in (8, 24):
        network = LargeNetwork(40, 5)
        for name in list(network.hosts)[-dead:]:
            network.crash(name)
        network.run(25.0)
        assert network.settled()
        sent.append(network.sent(10.0)[1])
    assert sent[1] < 1.2 * sent[0]


@pytest.mark.parametrize("nodes", SIZES)
def test_five_percent_loss_kills_nobody(nodes: int) -> None:
    mistakes, _ = under_loss(LargeNetwork(nodes, 3), 0.05, 1200.0 / nodes)
    assert mistakes.suspicions > 0, "nothing was lost"
    assert mistakes.killed == 0


@pytest.mark.parametrize("nodes", SIZES)
def test_a_stalled_loop_blames_nobody_else(nodes: int) -> None:
    network = LargeNetwork(nodes, 4)
    assert with_a_stalled_loop(network, [1.0] * 3 + [10.0]) == Mistakes(suspicions=0, killed=0, verdicts=0)
    assert network.until_known("n1", dead=False) == [], "it is alive again for all"


def test_a_message_costs_the_same_in_a_cluster_a_hundred_times_larger() -> None:
    assert cost_of_a_message(1000) < 3 * cost_of_a_message(10)
    assert cost_of_a_message(1000, suspects=400) < 3 * cost_of_a_message(10), "nor during a split"
