"""What the tests of parts share."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from kvstore.client import jitter
from kvstore.client.synchronous import Bucket, connect
from kvstore.client.transfer import exporting, importing
from kvstore.kvctl.main import main
from kvstore.server import sync_thread
from tests.patience import PATIENCE
from tests.unit.client_node import FakeCluster, run
from tests.unit.kvctl_calls import Done, Kvctl
from tests.unit.stepped_loop import SteppedWorker, nothing_left


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    """Runs scenarios on a SteppedLoop; whatever they leave behind fails the test."""
    monkeypatch.setattr(sync_thread, "SyncWorker", SteppedWorker)
    monkeypatch.setattr(jitter, "_random", random.Random(0))
    with nothing_left() as played:
        yield played


@pytest.fixture
def kvctl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Kvctl:
    """Calls kvctl with its arguments; errors become exit codes as in its own process."""

    def call(*arguments: object) -> Done:
        monkeypatch.setattr("sys.argv", ["kvctl", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return Done(int(ended.value.code or 0), output.out, output.err)

    return call


@pytest.fixture
def fake_cluster() -> Iterator[FakeCluster]:
    """Three nodes that hold all in one memory."""
    nodes = FakeCluster()
    run(nodes.start())
    try:
        yield nodes
    finally:
        run(nodes.stop())


@pytest.fixture
def bucket(fake_cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket of these nodes; import and export hardly wait between their attempts."""
    monkeypatch.setattr(importing, "_PAUSE", 0.001)
    monkeypatch.setattr(exporting, "_PAUSE", 0.001)
    with connect(fake_cluster.endpoints, timeout=PATIENCE) as client:
        yield client.bucket("carts")


@pytest.fixture
def fake(kvctl: Kvctl, fake_cluster: FakeCluster) -> Kvctl:
    """kvctl of these nodes."""
    return lambda *arguments: kvctl("--endpoints", fake_cluster.endpoints, "--timeout", PATIENCE, *arguments)
