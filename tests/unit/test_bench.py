"""The parts of the benchmarks that can be wrong without a cluster: schedules, statistics, what is missing."""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from pathlib import Path

import pytest

from bench.fsync import fsync_probe
from bench.open_loop import arrivals, run_open, run_paced
from bench.peers.__main__ import Load, Results, Round, found, goals
from bench.peers.etcd import Etcd
from bench.peers.own import Kvstore
from bench.peers.peer import Missing, Servers, program
from bench.peers.redis import dynomite_settings
from bench.peers.resp import Quorum, encode
from bench.rounds import ratios, spread


def test_arrivals_are_a_poisson_process_of_the_rate() -> None:
    times = arrivals(1000, 20, random.Random(1))
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 20
    assert len(times) == pytest.approx(20_000, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.05)  # exponential, not even
    assert arrivals(1000, 20, random.Random(1)) == times


def test_an_open_loop_counts_what_waited_behind_a_slow_start() -> None:
    """No coordinated omission: ten requests fall due while the first blocks the loop for 50 ms."""

    async def operation(number: int) -> None:
        if number == 0:
            time.sleep(0.05)  # noqa: ASYNC251  (a generator that is late)

    opened = asyncio.run(run_open(operation, [0.0, *(0.001 * n for n in range(1, 11))]))
    assert opened.measured.operations == opened.lag.operations == 11
    assert opened.measured.latencies[0] >= 0.039
    assert opened.lag.percentile(0.99) >= 0.039


def test_an_open_loop_does_not_wait_for_requests() -> None:
    most = under_way = 0

    async def operation(_number: int) -> None:
        nonlocal most, under_way
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1

    asyncio.run(run_open(operation, [0.0] * 40))
    assert most == 40


def test_a_paced_loop_holds_to_its_rate() -> None:
    async def operation(_number: int) -> None:
        await asyncio.sleep(0)

    measured = asyncio.run(run_paced(operation, 4, 200, 0.5))
    assert 50 <= measured.operations <= 104  # a busy machine may be late, never early


def test_the_probe_times_syncs_until_it_is_asked(tmp_path: Path) -> None:
    with fsync_probe(tmp_path) as probe:
        probe.take()
        taken = probe.take()
    assert taken
    assert min(taken) > 0
    assert (tmp_path / "fsync-probe").stat().st_size >= 256


def test_spread_and_ratios() -> None:
    assert spread([3000.0, 1000.0, 2000.4]) == "2,000 (1,000-3,000)"
    assert spread([1.25], 2) == "1.25 (1.25-1.25)"
    assert ratios([6.0, 1.0], [3.0, 2.0]) == [2.0, 0.5]
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [])


def test_a_quorum_is_done_at_its_number_and_ended_by_an_error() -> None:
    async def check() -> None:
        two = Quorum(2)
        two.on_answer(b"a")
        assert not two.done.done()
        two.on_answer(b"b")
        two.on_answer(b"late")
        assert await two.done == [b"a", b"b"]
        failed = Quorum(2)
        failed.on_answer(ConnectionError("gone"))
        failed.on_answer(b"b")
        with pytest.raises(ConnectionError, match="gone"):
            await failed.done

    asyncio.run(check())


def test_a_command_of_the_redis_protocol() -> None:
    assert encode(b"SET", b"k", b"a\r\nb") == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n"


def test_each_dynomite_knows_the_two_others() -> None:
    text = dynomite_settings(1, [11, 12, 13], 22, 32, 42)
    assert "rack: rack2\n" in text
    assert [port for port in (11, 12, 13) if f"127.0.0.1:{port}:rack" in text] == [11, 13]
    assert "dyn_listen: 127.0.0.1:12\n" in text
    assert text.count("DC_QUORUM") == 2


def test_what_is_missing_is_said_in_a_line_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = found({"kvstore": Kvstore, "etcd": lambda: Etcd(str(tmp_path))}, ["kvstore", "etcd"])
    assert [type(peer) for peer in peers] == [Kvstore]
    assert capsys.readouterr().out == (
        f"missing: etcd: no etcd in {tmp_path}: install the package etcd-server\n"
    )
    (tmp_path / "etcd").touch(mode=0o755)
    assert program(["other", "etcd"], str(tmp_path), "") == str(tmp_path / "etcd")
    with pytest.raises(Missing):
        program(["other"], str(tmp_path), "")


def test_a_server_that_ends_is_noticed_while_it_is_waited_for(tmp_path: Path) -> None:
    servers = Servers()
    servers.start(["sh", "-c", "echo no such flag; exit 1"], tmp_path / "s")
    try:
        with pytest.raises(RuntimeError, match="has ended: no such flag"):
            asyncio.run(servers.until_open([("127.0.0.1", 1)]))
    finally:
        servers.stop()


def test_goals_compare_the_rounds_of_one_load_alone() -> None:
    results: Results = {
        Load(Kvstore, "put", 256): [Round(8000, 1e-4, 0), Round(9000, 1e-4, 0)],
        Load(Etcd, "put", 256): [Round(4000, 2e-4, 0), Round(3000, 2e-4, 0)],
        Load(Etcd, "get", 1): [Round(1, 1, 1)],
    }
    assert goals(results) == [
        "put at 256: kvstore / etcd: throughput 2.50 (2.00-3.00) (wanted: at least 4), CPU 0.50 (0.50-0.50)"
    ]
