"""kvctl's commands for keys, files and nodes, called in this process against nodes in this process."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from kvstore.client.errors import PartialFailure
from kvstore.client.results import Result, UnresolvedSiblings
from kvstore.client.synchronous import Client, connect
from kvstore.client.transfer.records import BadLine
from kvstore.errors import (
    ConfigError,
    InternalError,
    InvalidRequest,
    KVError,
    NoNodeAvailable,
    Overloaded,
    ReadTimeout,
    TooManySiblings,
    Unavailable,
    VersionTooLarge,
    WriteTimeout,
)
from kvstore.kvctl import failures, repair, tables
from kvstore.kvctl.hints import hint_columns, hint_rows
from kvstore.kvctl.invocation import Invocation
from kvstore.kvctl.nodes import COLUMNS, problems_of, status_rows
from kvstore.kvctl.tables import table
from kvstore.local.ports import free_ports
from kvstore.node.status import MemberStatus, NodeStatus
from kvstore.protocol.gossip import Status
from kvstore.quorum.anti_entropy_status import AntiEntropyStatus
from kvstore.quorum.counters import Counters
from kvstore.quorum.hints import PendingHints
from kvstore.v1 import admin_pb2
from kvstore.wire import admin
from tests.patience import PATIENCE
from tests.unit.client_node import FakeCluster, run
from tests.unit.kvctl_calls import Done, Kvctl
from tests.unit.server_nodes import cluster_state, serving, settings
from tests.unit.status_records import node_status

# keys


def test_a_put_writes_over_what_is_there_unless_it_is_told_what_it_has_seen(fake: Kvctl) -> None:
    assert fake("put", "carts", "a", "one") == Done(0, "stored\n", "")
    assert fake("put", "carts", "a", "two").out == "stored\n"
    assert fake("get", "carts", "a").out == "two\n"
    assert fake("put", "carts", "a", "three", "--blind").out == "stored; concurrent values that stay: 1\n"
    both = fake("get", "carts", "a")
    assert {line.split(": ")[1] for line in both.out.splitlines()} == {"two", "three"}
    assert "sibling 1 of 2: " in both.out
    context = both.err.splitlines()[0].removeprefix("context: ")
    assert fake("put", "carts", "a", "later", "--blind").code == 0
    assert (
        fake("put", "carts", "a", "four", "--context", context).out
        == "stored; concurrent values that stay: 1\n"
    )
    raw = fake("get", "carts", "a", "--raw")
    assert (raw.code, raw.out) == (2, "")
    assert "has 2 siblings, which --raw cannot print" in raw.err
    assert (
        fake("delete", "carts", "a", "--context", context).out == "deleted; concurrent values that stay: 2\n"
    )
    assert fake("delete", "carts", "a") == Done(0, "deleted\n", "")
    gone = fake("get", "carts", "a")
    assert gone == Done(1, "", "kvctl: 'a' has no value in bucket 'carts'\n")


@pytest.mark.parametrize("command", [("put", "carts", "a", "v"), ("delete", "carts", "a")])
def test_what_is_wrong_with_w_is_said_of_w_although_the_read_before_has_it_as_r(
    kvctl: Kvctl, three: Nodes, command: tuple[str, ...]
) -> None:
    for option in ("w", "r"):
        done = kvctl("--endpoints", three.endpoints, "--timeout", PATIENCE, *command, f"-{option}", "9")
        assert done.err == f"kvctl: {option}: is 9, must be between 1 and n=3 of the bucket\n"


@pytest.mark.parametrize(
    ("given", "hint"),
    [("gte", " Is get meant?"), ("set", " Is put meant?"), ("frobnicate", "")],
)
def test_a_command_that_does_not_exist_is_refused_with_the_one_that_may_be_meant(
    kvctl: Kvctl, given: str, hint: str
) -> None:
    done = kvctl(given, "carts", "a")
    assert (done.code, done.err.splitlines()[-1]) == (2, f"Error: No such command {given!r}.{hint}")


def test_json_of_a_key_has_all_that_the_next_write_needs(fake: Kvctl) -> None:
    fake("put", "carts", "a", "{}", "--content-type", "application/json")
    found = json.loads(fake("-o", "json", "get", "carts", "a").out)
    assert found["key"] == "a"
    assert [(s["value"], s["content_type"], s["expiry_ms"]) for s in found["siblings"]] == [
        ("{}", "application/json", None)
    ]
    stored = json.loads(fake("-o", "json", "put", "carts", "a", "2", "--context", found["context"]).out)
    assert (stored["siblings"], stored["overwritten"]) == (1, 0)
    assert base64.b64decode(stored["context"], validate=True)


def test_values_come_from_the_command_line_a_file_or_standard_input(
    fake: Kvctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = bytes(range(256))
    (tmp_path / "value").write_bytes(value)
    assert fake("put", "carts", "file", "--file", tmp_path / "value").code == 0
    encoded = base64.b64encode(value).decode()
    assert fake("get", "carts", "file").out == f"base64:{encoded}\n"
    assert (
        json.loads(fake("-o", "json", "get", "carts", "file").out)["siblings"][0]["value_base64"] == encoded
    )
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"from a pipe")))
    assert fake("put", "carts", "pipe", "-").code == 0
    assert fake("get", "carts", "pipe", "--raw").out == "from a pipe"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("put", "carts", "k"), "give the VALUE or --file"),
        (("put", "carts", "k", "v", "--file", os.devnull), "give the VALUE or --file"),
        (("put", "carts", "k", "v", "--context", "AAAA", "--blind"), "exclude each other"),
        (("put", "carts", "k", "v", "--context", "%%%"), "context: is not base64"),
        (("get", "carts", ""), "key: has 0 bytes"),
    ],
)
def test_wrong_input_changes_nothing(
    fake: Kvctl, fake_cluster: FakeCluster, arguments: tuple[str, ...], complaint: str
) -> None:
    done = fake(*arguments)
    assert (done.code, done.out) == (2, "")
    assert complaint in done.err
    assert fake_cluster.store.applied == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("key", "x"), failures.USAGE),
        (ConfigError("x"), failures.USAGE),
        (BadLine(1, "x"), failures.USAGE),
        (UnresolvedSiblings(Result(b"k", (), b"")), failures.USAGE),
        (TooManySiblings(101, 100), failures.USAGE),
        (VersionTooLarge(2, 1), failures.USAGE),
        (ReadTimeout(1, 2), failures.TIMEOUT),
        (WriteTimeout(1, 2), failures.TIMEOUT),
        (InternalError("x"), failures.TIMEOUT),
        (Unavailable(2, 1), failures.UNAVAILABLE),
        (Overloaded(1.0), failures.UNAVAILABLE),
        (NoNodeAvailable({"n1": "x"}), failures.UNAVAILABLE),
        (PartialFailure({}, {b"k": ReadTimeout(1, 2)}), failures.TIMEOUT),
    ],
)
def test_each_error_has_its_exit_code(error: KVError, code: int) -> None:
    assert failures.exit_code(error) == code


# files


def test_import_and_export(fake: Kvctl, tmp_path: Path) -> None:
    given = b"".join(b'{"id": "k%d"}\n' % i for i in range(120))
    (tmp_path / "in").write_bytes(given)
    arguments = ("import", tmp_path / "in", "--key", "id", "--bucket", "carts")
    assert fake(*arguments).out == "imported 120, unchanged 0, retried 0, failed 0\n"
    assert json.loads(fake("-o", "json", *arguments).out) == {
        "imported": 0,
        "unchanged": 120,
        "retried": 0,
        "failed": 0,
        "duplicates": 0,
        "expired": 0,
    }
    exported = fake("export", "--bucket", "carts", "--plain", tmp_path / "out")
    assert exported == Done(0, "", "exported 120 keys\n")
    assert sorted((tmp_path / "out").read_bytes().splitlines()) == sorted(given.splitlines())


@pytest.mark.parametrize("skip", [False, True])
def test_what_is_left_out_is_named_and_the_exit_code_says_so(fake: Kvctl, tmp_path: Path, skip: bool) -> None:
    (tmp_path / "in").write_bytes(b'{"id": "a"}\n' + b"[]\n" * 23 + b'{"id": "b"}\n')
    options = ("--on-error", "skip") if skip else ()
    done = fake("import", tmp_path / "in", "--key", "id", "--bucket", "carts", *options)
    assert done.code == failures.INCOMPLETE
    named = [f"kvctl: line {n}: is not a JSON object" for n in range(2, 22)]
    if skip:
        assert done.out == "imported 2, unchanged 0, retried 0, failed 23\n"
        assert done.err.splitlines() == [*named, "kvctl: and 3 lines more"]
    else:
        assert done.out == "imported 1, unchanged 0, retried 0, failed 1\n"
        assert done.err.splitlines() == named[:1]


def test_an_import_that_fails_tells_how_far_it_came(
    fake: Kvctl, fake_cluster: FakeCluster, tmp_path: Path
) -> None:
    (tmp_path / "in").write_bytes(b'{"id": "a"}\n')
    for node in fake_cluster.nodes:
        node.refusals.extend([Unavailable(2, 1)] * 100)
    done = fake("import", tmp_path / "in", "--key", "id", "--bucket", "carts", "--patience", "0")
    assert done.code == failures.UNAVAILABLE
    assert done.out == "imported 0, unchanged 0, retried 0, failed 0\n"
    assert done.err == "kvctl: 2 replicas required, 1 alive\n"


def test_a_plain_export_names_what_is_no_json_object(
    fake: Kvctl, fake_cluster: FakeCluster, tmp_path: Path
) -> None:
    with connect(fake_cluster.endpoints, timeout=PATIENCE) as client:
        client.bucket("carts").put_many({f"k{i:02}": b"text" for i in range(22)} | {"ok": b"{}"})
    done = fake("export", "--bucket", "carts", "--plain", tmp_path / "out")
    assert done.code == failures.INCOMPLETE
    first, *skipped, more = done.err.splitlines()
    assert first == "exported 1 keys"
    assert len(skipped) == 20
    assert all("kvctl: left out: 'k" in line and "is no single JSON object" in line for line in skipped)
    assert more == "kvctl: and 2 keys more"
    assert (tmp_path / "out").read_bytes() == b"{}\n"


# nodes


def statuses(client: Client) -> dict[str, NodeStatus]:
    """What those nodes say that answer."""
    return {node: a for node, a in client.status().items() if isinstance(a, NodeStatus)}


class Nodes:
    """Whole nodes in this process, each on another `host`; of `members` the first `running` run."""

    def __init__(self, directory: Path, members: int, running: int, host: str = "") -> None:
        ports = free_ports(members)
        self.state = cluster_state(ports, "c1", hosts=[f"{host}{i}" for i in range(members)] if host else ())
        self.endpoints = ",".join(f"127.0.0.1:{port}" for port in ports)
        self._stack = AsyncExitStack()
        nodes = [settings(f"n{i}", port, directory, self.state) for i, port in enumerate(ports[:running], 1)]
        self.servers = run(self._stack.enter_async_context(serving(*nodes)))
        deadline = time.monotonic() + PATIENCE
        while not self._linked(running) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _linked(self, running: int) -> bool:
        with self.client() as client:
            answers = statuses(client).values()
        return all(sum(m.connected for m in answer.members) == running for answer in answers)

    def stop(self) -> None:
        run(self._stack.aclose())

    def client(self) -> Client:
        return connect(self.endpoints, timeout=PATIENCE)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    nodes = Nodes(tmp_path_factory.mktemp("three"), 3, 3, "machine-")
    yield nodes
    nodes.stop()


@pytest.fixture(scope="module")
def one_away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two of three run, and keep a hint for the third."""
    nodes = Nodes(tmp_path_factory.mktemp("two"), 3, 2)
    yield nodes
    nodes.stop()


def test_status_shows_each_node_as_it_says_and_as_others_see_it(kvctl: Kvctl, three: Nodes) -> None:
    with three.client() as client:
        for i in range(3):
            client.bucket("carts").put(f"k{i}", b"v")
    done = kvctl("--endpoints", three.endpoints, "-o", "json", "status")
    rows = json.loads(done.out)
    assert [row["node"] for row in rows] == ["n1", "n2", "n3"]
    assert [row["address"] for row in rows] == three.endpoints.split(",")
    assert {row["state"] for row in rows} == {"alive"}
    assert {row["pid"] for row in rows} == {os.getpid()}
    assert sum(row["puts"] for row in rows) == 3
    assert all(row["entries"] >= 3 for row in rows)
    assert all(row["engine"]["entries"] == row["entries"] for row in rows)
    table = kvctl("--endpoints", three.endpoints, "status").out.splitlines()
    assert [line.split()[0] for line in table if line.strip().startswith("n")] == ["node", "n1", "n2", "n3"]


def test_status_is_checked_and_watched(kvctl: Kvctl, three: Nodes) -> None:
    assert kvctl("--endpoints", three.endpoints, "status", "--check").code == 0
    watch = ("--endpoints", three.endpoints, "watch", "status", "--interval", "0.01", "--count", 2)
    lines = [json.loads(line) for line in kvctl(*watch, "-o", "json").out.splitlines()]
    assert [[row["node"] for row in line["nodes"]] for line in lines] == [["n1", "n2", "n3"]] * 2
    assert lines[0]["time_ms"] <= lines[1]["time_ms"]
    assert kvctl(*watch).out.count("127.0.0.1:") == 6


def test_what_is_wrong_with_a_node_is_named() -> None:
    alive = node_status("n1")
    broken = node_status(
        "n2",
        counters=Counters(defects=2),
        engine=replace(alive.engine, quarantined=3),
        refetching_from=("n1", "n3"),
    )
    away = NoNodeAvailable({"n3": "away"})
    answers: dict[str, NodeStatus | KVError] = {"n1": alive, "n2": broken, "n3": away}
    assert problems_of({"n1": alive}, status_rows({"n1": alive})) == []
    assert problems_of(answers, status_rows(answers)) == [
        "n3 is not reachable",
        "n2 has 3 damaged blocks or tables in quarantine",
        "n2 refetches what was damaged from n1, n3",
        "n2 has met 2 defects of its own: see its log",
        "n3 does not tell: no node available (n3: away)",
    ]


def test_a_node_tells_its_version_its_age_and_what_its_links_have_done(three: Nodes) -> None:
    with three.client() as client:
        bucket = client.bucket("carts")
        before = statuses(client)
        bucket.put_many({f"many{i}": b"v" for i in range(20)})
        after = statuses(client)
    for server, (node, then) in zip(three.servers, sorted(before.items()), strict=True):
        now = after[node]
        assert (now.node, now.version, now.pid) == (node, version("kvstore"), os.getpid())
        assert 0 < then.uptime < now.uptime < 3600
        assert [member.connected for member in now.members] == [True, True, True]
        for name in ("frames_sent", "messages_sent", "frames_received", "messages_received"):
            assert getattr(now.counters, name) >= getattr(then.counters, name) > 0, name
        assert now.counters.messages_sent >= now.counters.frames_sent
        dropped = now.counters.messages_dropped - then.counters.messages_dropped
        assert dropped < now.counters.frames_sent - then.counters.frames_sent
        assert now.most_queued_bytes > 0
        assert now.most_reply_bytes <= server.clients.most_reply_bytes
    pairs = [(after[node].counters, before[node].counters) for node in before]
    calls = sum(now.session_calls_received - then.session_calls_received for now, then in pairs)
    frames = sum(now.session_frames_received - then.session_frames_received for now, then in pairs)
    assert calls == 20
    assert 3 <= frames <= 20


def test_counters_of_all_nodes_or_of_some(kvctl: Kvctl, three: Nodes) -> None:
    with three.client() as client:
        client.bucket("carts").put("counted", b"v")
    rows = json.loads(kvctl("--endpoints", three.endpoints, "-o", "json", "counters").out)
    assert {row["counter"] for row in rows} == {field.name for field in fields(Counters)}
    (puts,) = (row for row in rows if row["counter"] == "puts")
    assert puts["sum"] == puts["n1"] + puts["n2"] + puts["n3"] > 0
    lines = kvctl("--endpoints", three.endpoints, "counters", "n2").out.splitlines()
    assert lines[1].split() == ["topic", "counter", "sum", "n2"]
    unknown = kvctl("--endpoints", three.endpoints, "counters", "n2", "n9")
    assert (unknown.code, unknown.out) == (2, "")
    assert "no member is called n9" in unknown.err


def test_a_status_that_cannot_be_read_is_an_error_in_its_place(
    three: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    beyond = admin_pb2.MemberStatus(node="n1", status=9)  # type: ignore[arg-type]
    wrong = admin_pb2.GetStatusResponse(node="n1", members=[beyond])
    monkeypatch.setattr(admin, "node_status_to_wire", lambda status: wrong)
    with three.client() as client:
        answers = client.status()
    assert {type(answer) for answer in answers.values()} == {InternalError}
    assert "sent a reply that cannot be read" in str(answers["n1"])


def test_repair_waits_until_all_replicas_are_proven_equal(
    kvctl: Kvctl, three: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "_POLL_SECONDS", 0.01)
    arguments = ("--endpoints", three.endpoints, "--timeout", PATIENCE)
    found = json.loads(kvctl(*arguments, "-o", "json", "repair", "--wait", PATIENCE).out)
    # each partition, with each of two peers, from each node
    assert found == {"pairs": 8 * 3 * 2, "left": 0, "away": []}
    given_up = kvctl(*arguments, "repair", "--wait", "0")
    assert given_up.code == failures.INCOMPLETE
    assert given_up.out == ""
    assert given_up.err.startswith("kvctl: not proven equal after 0 s: 16 of n1's, which waits for n2, n3\n")
    with three.client() as client:
        told = client.repair(start=False)["n1"]
        assert isinstance(told, AntiEntropyStatus)
        assert told.pairs == 16


def test_the_ring_shows_who_holds_what(kvctl: Kvctl, three: Nodes) -> None:
    arguments = ("--endpoints", three.endpoints, "-o", "json", "ring")
    found = json.loads(kvctl(*arguments).out)
    assert (found["cluster"], found["epoch"]) == ("c1", three.state.epoch)
    assert sum(member["first_in"] for member in found["members"]) == 8
    assert [member["replica_of"] for member in found["members"]] == [8, 8, 8]
    place = json.loads(kvctl(*arguments, "--key", "carts", "user:1").out)
    assert place["partition"] == three.state.ring.partition("carts", b"user:1")
    assert place["primaries"] == list(three.state.ring.replica_lists[place["partition"]])
    assert int(place["token"], 16) >> 61 == place["partition"]
    lines = kvctl("--endpoints", three.endpoints, "ring", "--key", "carts", "user:1").out.splitlines()
    assert f"primaries: {' '.join(place['primaries'])}" in lines
    assert "fallbacks: -" in lines


def test_hosts_are_shown_where_members_are(
    kvctl: Kvctl, three: Nodes, one_away: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = {"n1": "machine-0", "n2": "machine-1", "n3": "machine-2"}
    with three.client() as client:
        assert {m.node: m.host for m in client.ring().members} == hosts
        assert {m.node: m.host for m in statuses(client)["n1"].members} == hosts

    def told(nodes: Nodes, *arguments: str) -> Any:
        return json.loads(kvctl("--endpoints", nodes.endpoints, "-o", "json", *arguments).out)

    def shown(nodes: Nodes, *arguments: str) -> str:
        return kvctl("--endpoints", nodes.endpoints, *arguments).out

    assert {row["node"]: row["host"] for row in told(three, "status")} == hosts
    assert {row["node"]: row["host"] for row in told(three, "ring")["members"]} == hosts
    key = ("ring", "--key", "carts", "user:1")
    place = told(three, *key)
    assert place["hosts"] == [hosts[node] for node in place["primaries"]]
    assert f"hosts: {' '.join(place['hosts'])}\n" in shown(three, *key)
    for arguments in (("status",), ("ring",)):
        for width in (200, 80, 40):
            monkeypatch.setattr(tables, "_PIPE_WIDTH", width)
            assert max(map(len, shown(three, *arguments).splitlines())) <= width
            if width > 40 or arguments == ("ring",):
                assert all(host in shown(three, *arguments) for host in hosts.values())
            assert "host" not in shown(one_away, *arguments)
    assert [row["host"] for row in told(one_away, "status")] == [None] * 3
    assert told(one_away, *key)["hosts"] == [None] * 3
    assert "hosts" not in shown(one_away, *key)


def test_explain_shows_how_a_reply_came_about(kvctl: Kvctl, three: Nodes) -> None:
    arguments = ("--endpoints", three.endpoints, "--timeout", PATIENCE)
    stored = kvctl(*arguments, "put", "carts", "explained", "v", "--explain", "-w", "3")
    fields = dict(line.split(": ") for line in stored.err.splitlines())
    assert sorted(fields["answered"].split()) == ["n1", "n2", "n3"]
    assert fields["overwritten"] == "0"
    found = json.loads(
        kvctl(*arguments, "-o", "json", "get", "carts", "explained", "--explain", "-r", "3").out
    )
    assert sorted(found["explain"]["answered"]) == ["n1", "n2", "n3"]
    assert found["explain"]["partition"] == three.state.ring.partition("carts", b"explained")


def test_a_node_that_is_away_is_described_by_the_others(kvctl: Kvctl, one_away: Nodes) -> None:
    arguments = ("--endpoints", one_away.endpoints, "--timeout", 2)
    rows = json.loads(kvctl(*arguments, "-o", "json", "status").out)
    assert rows[2]["node"] == "n3"
    assert rows[2]["address"] == one_away.endpoints.split(",")[2]
    assert "pid" not in rows[2]
    assert rows[0]["state"] == "alive"
    with one_away.client() as client:
        told = statuses(client)["n1"]
    assert {m.node: m.connected for m in told.members} == {"n1": True, "n2": True, "n3": False}
    began = time.monotonic()
    done = kvctl(*arguments, "-o", "json", "repair", "--wait", PATIENCE)
    assert time.monotonic() - began < PATIENCE  # it does not wait for who is away
    assert done.code == failures.INCOMPLETE
    # of 8 partitions, from each of two nodes, one pair is proven and the one with n3 cannot be
    assert json.loads(done.out) == {"pairs": 8 * 2 * 2, "left": 8 * 2, "away": ["n3"]}
    (named,) = done.err.splitlines()
    assert named.startswith("kvctl: n3 is away, so nothing is proven of what it holds: ")
    checked = kvctl(*arguments, "status", "--check")
    assert checked.code == failures.INCOMPLETE
    assert "kvctl: n3 does not tell: " in checked.err
    counted = kvctl(*arguments, "-o", "json", "counters")
    assert set(json.loads(counted.out)[0]) == {"topic", "counter", "sum", "n1", "n2"}
    assert "kvctl: n3 does not tell: " in counted.err
    hints = kvctl(*arguments, "-o", "json", "hints")
    assert [row["node"] for row in json.loads(hints.out)][:1] == ["n1"]
    assert "kvctl: n3 does not tell: " in hints.err


def test_hints_are_shown_by_target_with_the_totals_of_the_node_once() -> None:
    away = node_status("n2", counters=Counters(hints_delivered=7))
    kept = node_status(
        "n1",
        hints=(PendingHints("n3", 5, 70, 1.6), PendingHints("n4", 1, 9, 0.2)),
        counters=Counters(hints_rerouted=1, hints_overflowed=2, hints_expired=3, hints_unwritable=4),
    )
    rows = hint_rows({"n2": away, "n1": kept, "n5": NoNodeAvailable({"n5": "away"})})
    totals = {"delivered": 0, "rerouted": 1, "overflowed": 2, "expired": 3, "unwritable": 4}
    assert rows == [
        {"node": "n1", "target": "n3", "pending": 5, "bytes": 70, "oldest_s": 2} | totals,
        {"node": "n1", "target": "n4", "pending": 1, "bytes": 9, "oldest_s": 0},
        {"node": "n2", "pending": 0, "bytes": 0} | dict.fromkeys(totals, 0) | {"delivered": 7},
    ]


def test_what_others_see_of_a_node_is_counted_where_they_differ() -> None:
    def seen(node: str, *views: tuple[str, Status]) -> NodeStatus:
        members = tuple(MemberStatus(member, f"{member}:1", "", "", status, 1) for member, status in views)
        return node_status(node, members=members)

    alive, suspect, dead = Status
    rows = status_rows(
        {
            "n1": seen("n1", ("n1", alive), ("n2", suspect), ("n3", dead)),
            "n2": seen("n2", ("n1", alive), ("n2", alive), ("n3", dead)),
            "n3": NoNodeAvailable({"n3": "away"}),
            "n4": seen("n4", ("n2", dead)),
            "n5": NoNodeAvailable({"n5": "away"}),
        }
    )
    assert [row["state"] for row in rows] == ["alive", "1 dead, 1 suspect", "dead", "alive", "not reachable"]
    assert [row["address"] for row in rows] == ["n1:1", "n2:1", "n3:1", None, None]


def test_a_table_has_a_dash_for_nothing_and_separators_in_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    Invocation(None, 1.0, "table").show([{"a": 1234567, "b": None}, {"a": 1, "b": True}], ("a", "b"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip(" ─╶╴")]
    assert lines == [["a", "b"], ["1,234,567", "-"], ["1", "yes"]]


def test_a_table_leaves_out_empty_columns_and_cuts_nothing_off() -> None:
    narrow = Console(width=20, record=True, file=io.StringIO())
    narrow.print(table([{"a": "x" * 30, "b": None}, {"a": "y", "c": 1}], ("a", "b", "c", "d")))
    lines = [line.split() for line in narrow.export_text().splitlines() if line.strip(" ─╶╴")]
    assert (lines[0], lines[-1]) == (["a", "c"], ["y", "1"])
    assert sum(cell.count("x") for line in lines for cell in line) == 30


def test_nodes_and_hints_fit_into_80_characters() -> None:
    members = tuple(
        MemberStatus(f"n{i}", f"127.0.0.1:{7000 + i}", "", "", Status.ALIVE, 1, True) for i in (1, 2, 3)
    )
    kept = (PendingHints("n3", 12_345, 1_073_741_824, 86_400.0),)
    usual = node_status("n1", members=members, hints=kept)
    engine = replace(usual.engine, entries=999_999, table_bytes=999_900_000)
    statuses = {f"n{i}": replace(usual, node=f"n{i}", engine=engine) for i in (1, 2, 3)}
    wide = Console(width=200, record=True, file=io.StringIO())
    wide.print(table(status_rows(statuses), COLUMNS))
    wide.print(table(hint_rows(statuses), hint_columns(hint_rows(statuses))))
    lines = wide.export_text().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert {"proof", "delivered"} <= {word for line in lines for word in line.split()}


@pytest.mark.parametrize("arguments", [("k", "--file", "-"), ("k", "-")])
def test_no_more_is_read_of_a_value_than_any_cluster_takes(
    fake: Kvctl, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    with open("/dev/zero") as endless:
        monkeypatch.setattr(sys, "stdin", endless)
        done = fake("put", "b", *arguments)
    assert (done.code, done.err) == (failures.USAGE, "kvctl: value: has more than 16,777,216 bytes\n")
