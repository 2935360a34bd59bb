"""Real nodes are stopped again and again under load, in every way that people stop them: each ends with 0."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

import kvstore
from kvstore.local.ports import free_ports
from tests.patience import PATIENCE

STOPS = int(os.environ.get("KVSTORE_STOPS", "6"))
"""How many: `make stops` for 200."""

SMALL = ("--memtable-bytes", "65536", "--log-level", "warning")
"""Flushes and compactions are always under way."""

KEYS, VALUE_BYTES = 20, 4096


class Writer:
    """Puts without a pause, whoever is up; remembers what was acknowledged."""

    def __init__(self, endpoints: str) -> None:
        self._endpoints = endpoints
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.acknowledged: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        value = random.Random(1).randbytes(VALUE_BYTES)
        with kvstore.connect(self._endpoints) as client:
            bucket = client.bucket("b")
            while not self._over.is_set():
                first = len(self.acknowledged)
                keys = [f"{time.monotonic_ns()}-{first}-{number}" for number in range(KEYS)]
                try:
                    self.acknowledged += bucket.put_many(dict.fromkeys(keys, value), timeout=2.0)
                except kvstore.PartialFailure as error:
                    self.acknowledged += map(str, error.succeeded)
                except kvstore.KVError:
                    continue

    def wait_for(self, more: int) -> None:
        """Wait until so many more puts are acknowledged."""
        until, give_up = len(self.acknowledged) + more, time.monotonic() + PATIENCE
        while len(self.acknowledged) < until:
            assert time.monotonic() < give_up, "nothing is acknowledged any more"
            time.sleep(0.01)


class Stops:
    """Three nodes as processes, and how each stop of one ended."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._members = ",".join(f"n{i}=127.0.0.1:{port}" for i, port in enumerate(free_ports(3), 1))
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self.codes: Counter[int] = Counter()
        self.longest = 0.0
        self.wrong: list[str] = []

    @property
    def nodes(self) -> list[str]:
        return ["n1", "n2", "n3"]

    @property
    def endpoints(self) -> str:
        return ",".join(member.partition("=")[2] for member in self._members.split(","))

    def start(self, node: str) -> None:
        arguments = ["--node", node, "--data", node, "--initial-cluster", self._members, *SMALL]
        with (self._directory / f"{node}.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                [sys.executable, "-m", "kvstore.server", *arguments],
                cwd=self._directory,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def until_serving(self, nodes: Sequence[str]) -> None:
        for node in nodes:
            stdout = self._processes[node].stdout
            assert stdout is not None
            assert stdout.readline().startswith(f"kvnode {node} serving on "), self.log(node)

    def stop(self, nodes: Sequence[str], numbers: Sequence[int], again: float = 0.0) -> None:
        """Send the first signal to all of the nodes, the second to each `again` seconds later."""
        began = time.monotonic()
        for node in nodes:
            self._signal(node, numbers[0])
        for number in numbers[1:]:
            time.sleep(again)
            for node in nodes:
                self._signal(node, number)
        for node in nodes:
            code = self._processes[node].wait(PATIENCE)
            self.codes[code] += 1
            self.longest = max(self.longest, time.monotonic() - began)
            if code:
                self.wrong.append(f"{node} ended with {code}: {self.log(node)}")
            self._processes[node].communicate()

    def _signal(self, node: str, number: int) -> None:
        if number == signal.SIGINT:
            os.killpg(self._processes[node].pid, number)  # as a terminal's Ctrl-C
        else:
            self._processes[node].send_signal(number)

    def log(self, node: str) -> str:
        return (self._directory / f"{node}.log").read_text()[-2000:]

    def end(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.communicate()


@pytest.fixture
def stops(tmp_path: Path) -> Iterator[Stops]:
    found = Stops(tmp_path)
    try:
        yield found
    finally:
        found.end()


@pytest.mark.timeout(300 + 60 * STOPS)
def test_every_stop_under_load_ends_in_order(stops: Stops) -> None:
    rng = random.Random(os.environ.get("KVSTORE_STOPS_SEED", "1"))
    for node in stops.nodes:
        stops.start(node)
    stops.until_serving(stops.nodes)
    with Writer(stops.endpoints) as writer:
        while stops.codes.total() < STOPS:
            writer.wait_for(rng.randrange(1, 20 * KEYS))
            nodes = rng.choice([stops.nodes, stops.nodes, [rng.choice(stops.nodes)]])
            numbers = rng.choice([[signal.SIGTERM], [signal.SIGINT], [signal.SIGTERM] * 2])
            stops.stop(nodes, numbers, rng.choice([0.0, 0.1, 0.5]))
            for node in nodes:
                stops.start(node)
            stops.until_serving(nodes)
            print(
                f"{stops.codes.total()} stops: {dict(stops.codes)}, longest {stops.longest:.1f} s", flush=True
            )
        acknowledged = writer.acknowledged
    with kvstore.connect(stops.endpoints, timeout=PATIENCE) as client:
        found = client.bucket("b").get_many(acknowledged)
    assert stops.wrong == []
    assert [key for key, result in found.items() if not result] == []
