"""What a node tells reaches all who show it: a counter or a field that is declared is nowhere left out."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace

import pytest

from kvstore.config import BucketSettings
from kvstore.errors import InvalidRequest, KVError, Unavailable
from kvstore.kvctl.counters import counter_rows
from kvstore.kvctl.nodes import status_rows
from kvstore.node.status import NodeStatus
from kvstore.quorum.counters import TOPICS, Counters
from kvstore.sim.cluster import SimulatedCluster
from kvstore.v1 import admin_pb2 as pb
from kvstore.wire.status import (
    node_status_from_wire,
    node_status_to_wire,
    repair_from_wire,
    repair_to_wire,
)
from tests.plain import Put
from tests.unit.quorum_cluster import Cluster
from tests.unit.status_records import full_status, node_status

NAMES = [field.name for field in fields(Counters)]


def test_no_field_of_a_status_is_lost_on_the_wire() -> None:
    status = full_status()
    assert all(getattr(status, field.name) for field in fields(NodeStatus))
    sent = node_status_to_wire(status).SerializeToString()
    assert node_status_from_wire(pb.GetStatusResponse.FromString(sent)) == status


def test_no_field_of_a_repair_is_lost_on_the_wire() -> None:
    status = full_status().anti_entropy
    assert all(asdict(status).values())
    assert repair_from_wire(repair_to_wire(status)) == status


def test_a_status_of_another_version_is_read_as_far_as_it_is_known() -> None:
    response = node_status_to_wire(node_status("n1", counters=Counters(gets=3, puts=4)))
    response.counters["invented_later"] = 5
    del response.counters["puts"]
    assert node_status_from_wire(response).counters == Counters(gets=3)


def test_a_member_whose_status_does_not_exist_is_refused() -> None:
    response = pb.GetStatusResponse(node="n1")
    response.members.add(node="n2", status=pb.GetStatusResponse().members.add().status)
    with pytest.raises(InvalidRequest, match="0 is no status of a member"):
        node_status_from_wire(response)


def test_each_counter_has_one_topic() -> None:
    assert sorted(name for names in TOPICS.values() for name in names) == sorted(NAMES)


def test_kvctl_shows_each_counter_of_each_node_and_their_sum() -> None:
    one = Counters(**{name: place for place, name in enumerate(NAMES, 1)})
    two = Counters(**{name: 100 * place for place, name in enumerate(NAMES, 1)})
    rows = counter_rows({"n1": node_status("n1", counters=one), "n2": node_status("n2", counters=two)})
    assert {row["counter"]: (row["sum"], row["n1"], row["n2"]) for row in rows} == {
        name: (101 * place, place, 100 * place) for place, name in enumerate(NAMES, 1)
    }


def test_kvctl_status_has_all_figures_as_json() -> None:
    status = full_status()
    (row,) = status_rows({"n1": status})
    shown = json.loads(json.dumps(row))
    assert shown["counters"] == asdict(status.counters)
    assert shown["engine"] == asdict(status.engine)
    in_row = {f.name for f in fields(NodeStatus) if f.name.endswith("_bytes") or f.name == "in_flight"}
    assert shown["load"] == {name: getattr(status, name) for name in in_row}


def test_kvctl_status_names_who_differs_in_which_setting() -> None:
    answers: dict[str, NodeStatus | KVError] = {
        "n1": node_status("n1", settings={"max-value": "1000", "bucket b": "n=3"}),
        "n2": node_status("n2", settings={"max-value": "2000"}),
        "n3": node_status("n3", settings={"max-value": "1000", "bucket b": "n=2"}),
        "n4": Unavailable(1, 0),
    }
    rows = {row["node"]: row["settings_differ"] for row in status_rows(answers)}
    assert rows == {
        "n1": {"bucket b": "n=3 (no majority agrees)"},
        "n2": {"bucket b": "not set (no majority agrees)", "max-value": "2000 (most nodes: 1000)"},
        "n3": {"bucket b": "n=2 (no majority agrees)"},
        "n4": {},
    }


def test_the_totals_of_a_simulated_run_have_each_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = SimulatedCluster(1, 1, [BucketSettings("carts", n=1, r=1, w=1)])
    cluster.start()
    host = cluster.hosts["n1"]
    assert host.node is not None
    counted = Counters(**{name: place for place, name in enumerate(NAMES, 1)})
    now = replace(host.shell.status(), counters=counted)
    monkeypatch.setattr(type(host.node), "status", lambda *_: now)
    host.finish()
    told = {f"nodes: {name.replace('_', ' ')}": place for place, name in enumerate(NAMES, 1)}
    assert {name: count for name, count in host.counts.items() if name.startswith("nodes: ")} == told


def test_what_a_status_carries_does_not_change_any_more() -> None:
    cluster = Cluster(3)
    before = cluster.hosts["n1"].status().counters
    cluster.stored_reply("n1", Put("carts", b"user:1", b"v"))
    assert (before.puts, cluster.hosts["n1"].status().counters.puts) == (0, 1)
