"""The runner's parts by themselves: schedules, splits, the proxy, generators."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from jepsen import __main__ as command
from jepsen import nemesis
from jepsen.checkers import Result, Verdict
from jepsen.checkers.availability import side
from jepsen.client import clock_since
from jepsen.cluster import Cluster, Layout
from jepsen.drivers.network import CONTROL, Slow
from jepsen.drivers.proxy import Proxy
from jepsen.history import History, HistoryWriter, Op, Operation, Period
from jepsen.judge import without_removed
from jepsen.nemeses import GROUPS, NEMESES
from jepsen.nemeses.splits import Ring, cut_between
from jepsen.run import Options, drivers
from jepsen.runner import run_apart
from jepsen.schedule import BadChoice, Fault, make_schedule, parse_nemeses, skipped
from jepsen.workloads import WORKLOADS
from jepsen.workloads.base import Call, Thread

NODES = ("n1", "n2", "n3", "n4", "n5")
CLIENTS = ("c1", "c2")


def cluster_of(directory: Path) -> Cluster:
    """A cluster that was not opened, for planning."""
    return Cluster(Layout(directory, NODES, CLIENTS, ()), Proxy(NODES, CLIENTS))


def test_the_same_seed_makes_the_same_schedule(tmp_path: Path) -> None:
    lists = parse_nemeses("network+kill-one,pause")
    cluster = cluster_of(tmp_path)
    first, again, other = (make_schedule(lists, seed, cluster, 300.0, 5.0) for seed in (1, 1, 2))
    assert first == again != other
    assert {fault.nemesis for fault in first} == {*GROUPS["network"], "kill-one", "pause"}
    assert all(0 < fault.begin < fault.end <= 300 for fault in first)
    pauses = [fault for fault in first if fault.nemesis in ("kill-one", "pause")]
    assert all(a.end < b.begin for a, b in pairwise(pauses))


def test_an_unknown_nemesis_is_named() -> None:
    with pytest.raises(BadChoice, match="'earthquake'"):
        parse_nemeses("network,earthquake")
    with pytest.raises(BadChoice, match="reset cannot go on beside itself"):
        parse_nemeses("network+reset")


def test_what_a_cluster_cannot_have_is_told_with_the_reason(tmp_path: Path) -> None:
    cluster = Cluster(Layout(tmp_path, NODES[:3], CLIENTS, ()), Proxy(NODES[:3], CLIENTS))
    assert skipped([["majorities-ring"]], cluster) == {"majorities-ring": "it takes 5 nodes"}


def test_a_split_cuts_what_is_on_no_common_side() -> None:
    cuts = cut_between([["n1", "n2", "c1"], ["n2", "n3"]])
    assert cuts == {("n1", "n3"), ("n3", "n1"), ("c1", "n3"), ("n3", "c1")}


def test_in_a_ring_of_majorities_each_node_reaches_a_majority_and_no_two_the_same(tmp_path: Path) -> None:
    value = Ring().plan(random.Random(1), cluster_of(tmp_path))
    seen = [frozenset(host for host in side if host in NODES) for side in value]
    assert len(set(seen)) == len(NODES)
    assert all(len(each) == 3 for each in seen)
    reached = {side[0]: each for side, each in zip(value, seen, strict=True)}
    assert all((a in reached[b]) == (b in reached[a]) for a in NODES for b in NODES)


def test_every_side_of_a_split_has_clients(tmp_path: Path) -> None:
    for seed in range(20):
        sides = NEMESES["isolate-one"].plan(random.Random(seed), cluster_of(tmp_path))
        assert all(any(client in side for client in CLIENTS) for side in sides)
        assert sorted(host for side in sides for host in side) == sorted((*NODES, *CLIENTS))


@pytest.mark.parametrize("name", WORKLOADS)
def test_generators_repeat_by_seed_and_never_a_value(name: str) -> None:
    def values(seed: int) -> list[Call]:
        workload = WORKLOADS[name](3)
        thread = Thread(0, 4, random.Random(seed), seen={"mine": [7]})
        return [workload.next(thread) for _ in range(200)]

    assert values(1) == values(1) != values(2)
    written = [call.value for call in values(1) if call.f in ("add", "write")]
    assert len(set(written)) == len(written)
    assert all(call.key.startswith(f"{name}/") for call in values(1))


# the proxy


_opened: list[asyncio.StreamWriter] = []


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Proxy, list[int]]]:
    """A proxy before one node, which answers each byte with itself; the list counts its connections."""
    proxy = Proxy(("n1",), ("c1",))
    connections: list[int] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    host, _, port = proxy.address("n1").rpartition(":")
    server = await asyncio.start_server(echo, host, int(port))
    await proxy.open()
    try:
        yield proxy, connections
    finally:
        for writer in _opened:
            writer.close()
        _opened.clear()
        await proxy.close()
        server.close()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)
        await asyncio.sleep(0)


async def connect(proxy: Proxy, host: str = "c1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = int(proxy.environment(host)["KVSTORE_PROXY"].rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    _opened.append(writer)
    writer.write(f"CONNECT {proxy.address('n1')} HTTP/1.1\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def echoed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, within: float) -> bool:
    writer.write(b"x")
    try:
        async with asyncio.timeout(within):
            return await reader.readexactly(1) == b"x"
    except TimeoutError:
        return False


@pytest.mark.parametrize("cut", [("c1", "n1"), ("n1", "c1")])
def test_a_way_that_is_cut_holds_what_was_sent_until_it_is_open(cut: tuple[str, str]) -> None:
    async def check() -> None:
        async with proxied() as (proxy, _):
            ends = await connect(proxy)
            assert await echoed(*ends, within=5)
            await proxy.cut([cut])
            assert not await echoed(*ends, within=0.05)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await connect(proxy)
            assert await echoed(*(await connect(proxy, CONTROL)), within=5), "another host is not cut off"
            await proxy.cut([])
            assert await ends[0].readexactly(1) == b"x"

    asyncio.run(check())


def test_a_slow_way_takes_its_time() -> None:
    async def check() -> None:
        async with proxied() as (proxy, _):
            ends = await connect(proxy)
            await proxy.slow({("n1", "c1"): Slow(1_000_000, 0.05)})
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await echoed(*ends, within=5)
            assert loop.time() - began >= 0.05

    asyncio.run(check())


def test_a_reset_breaks_connections() -> None:
    async def check() -> None:
        async with proxied() as (proxy, _):
            reader, writer = await connect(proxy)
            assert await echoed(reader, writer, within=5)
            await proxy.reset([("c1", "n1")])
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)

    asyncio.run(check())


def test_a_duplicated_connection_reaches_the_node_twice() -> None:
    async def check() -> None:
        async with proxied() as (proxy, connections):
            await proxy.duplicate([("c1", "n1")])
            reader, writer = await connect(proxy)
            assert await echoed(reader, writer, within=5)
            assert len(connections) == 2
            assert proxy.duplicated == 1

    asyncio.run(check())


# judging


def ops(*rows: tuple[int, str, str, object]) -> Iterator[Op]:
    for index, (process, type_, f, value) in enumerate(rows):
        yield Op(index, index, process, type_, f, value, key="cart/0-0")  # type: ignore[arg-type]


def test_removed_items_are_not_judged_as_lost() -> None:
    calls = [("add", 1, 1), ("add", 2, 2), ("remove", 1, 1), ("read", None, [2])]
    rows = [row for f, given, got in calls for row in ((0, "invoke", f, given), (0, "ok", f, got))]
    assert [op.value for op in without_removed(History(ops(*rows)))] == [2, 2, None, [2]]


def test_a_client_is_on_the_side_that_has_most_nodes_not_most_hosts() -> None:
    period = Period("split-halves", 0, 10, [["n1", "c1", "c2"], ["n2", "n3"]])
    asked = Operation(Op(0, 1, 0, "invoke", "read", node="c1"), None)
    assert side(asked, period) == "minority"


def test_the_proxy_is_always_possible() -> None:
    assert drivers()["proxy"] == ""


def test_a_hunt_needs_a_checker_that_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that did not come to its end, or did too little, has found nothing."""
    monkeypatch.setattr(command, "drivers", lambda: {"namespaces": "", "proxy": ""})
    for results, code in (
        ({}, 1),
        ({"set counts": Result("set counts", False, {})}, 1),
        ({"set set-full": Result("set set-full", "unknown", {})}, 1),
        ({"set set-full": Result("set set-full", False, {})}, 0),
    ):
        monkeypatch.setattr(command, "run_apart", lambda options, found=results: (1, found))
        assert CliRunner().invoke(command.main, ["hunt", "ack-before-fsync"]).exit_code == code


@pytest.mark.parametrize(
    ("verdicts", "code", "runs"),
    [
        ([True], 0, 1),
        (["unknown", True], 0, 2),
        (["unknown", False], 1, 2),
        (["unknown", "unknown", "unknown"], 2, 3),
        ([False], 1, 1),
        ([None], 2, 1),
    ],
)
def test_a_run_of_the_suite_that_is_unknown_is_done_again_with_more_time(
    monkeypatch: pytest.MonkeyPatch, verdicts: list[Verdict | None], code: int, runs: int
) -> None:
    seconds: list[float] = []

    def run(options: Options) -> tuple[int, dict[str, Result]]:
        verdict = verdicts[len(seconds)]
        seconds.append(options.seconds)
        codes: dict[Verdict | None, int] = {True: 0, False: 1}
        return codes.get(verdict, 2), {} if verdict is None else {"counts": Result("counts", verdict)}

    monkeypatch.setattr(command, "drivers", lambda: {"proxy": ""})
    monkeypatch.setattr(command, "run_apart", run)
    done = CliRunner().invoke(command.main, ["suite", "--seed", "1", "--time", "10"])
    assert (done.exit_code, seconds) == (code, [10.0, 20.0, 40.0][:runs])


def test_runs_of_a_suite_are_processes_of_their_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Those after the first in one process had gRPC's threads in a namespace that was gone."""
    options = Options(("set",), "nonsense", 1, tmp_path / "run")
    assert run_apart(options) == (2, {})
    assert "the run came to nothing: there is no nemesis 'nonsense'" in capfd.readouterr().out


class _Late:
    """A fault that begins late, as it waits for others to end."""

    longest = 1.0

    def __init__(self, name: str, waits: float) -> None:
        self.name = name
        self._waits = waits

    async def start(self, cluster: Cluster, value: object) -> None:
        await asyncio.sleep(self._waits)

    async def stop(self, cluster: Cluster, value: object) -> None:
        pass


@pytest.mark.parametrize(("until", "made"), [(3.0, ["a", "b", "c"]), (0.1, ["a"])])
def test_a_fault_that_was_kept_waiting_is_made_late_while_the_run_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: float, made: list[str]
) -> None:
    kinds = {name: _Late(name, waits) for name, waits in (("a", 0.5), ("b", 0.0), ("c", 0.0))}
    monkeypatch.setattr(nemesis, "NEMESES", kinds)

    class Nothing:
        def fault(self, name: str, lasts: bool) -> None:
            pass

    async def run() -> list[str]:
        with HistoryWriter(tmp_path / "nemesis.jsonl", clock_since(time.monotonic_ns())) as writer:
            process = nemesis.NemesisProcess(Nothing(), writer)  # type: ignore[arg-type]
            faults = [("a", 0.0, 0.01, 0), ("b", 0.02, 0.03, 1), ("c", until - min(1.0, until / 2), until, 0)]
            await process.run([Fault(name, begin, end, {}, track) for name, begin, end, track in faults])
            return sorted(process.made)

    assert asyncio.run(run()) == made
