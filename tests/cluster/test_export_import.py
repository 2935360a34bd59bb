"""A backup of mixed records, taken and given back to emptied nodes under kills; long by `make backup`."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import TypeVar

import pytest

from kvstore.client.synchronous import Bucket, connect
from kvstore.client.transfer.exporting import Exporter
from kvstore.client.transfer.importing import Importer
from kvstore.client.transfer.lines import ExportReader
from kvstore.client.transfer.records import Held, Record, held
from kvstore.client.transfer.source import Source
from kvstore.config import MIB
from kvstore.errors import InvalidRequest
from kvstore.local.cluster import LocalCluster
from tests.patience import PATIENCE

RECORDS = int(os.environ.get("KVSTORE_EXPORT_RECORDS", "1500"))
LARGE = RECORDS // 600
KILLS = 1 + RECORDS // 20_000
STEP = RECORDS // (2 * KILLS + 1)
HOUR_MS = 3_600_000

T = TypeVar("T")

Contents = dict[bytes, set[tuple[bytes, str, int]]]


def records(chance: random.Random) -> Iterator[Record]:
    """Text, bytes, JSON; siblings, content types, ends; some of 1 MiB."""
    end = int(time.time() * 1000) + 48 * HOUR_MS
    for i in range(RECORDS):
        key = b"k%06d" % i if i % 3 else b"\xff\x00%06d" % i
        siblings = [Held(chance.randbytes(chance.randrange(1, 300)))]
        match i % 7:
            case 1:
                siblings = [Held(b'{"id": "other", "n": %d}' % i, "application/json")]
            case 2:
                siblings += [Held(chance.randbytes(20)), Held(b"text", "text/plain")]
            case 3:
                siblings = [Held(b"session", "", end + (i % 5) * HOUR_MS)]
            case 4:
                siblings.append(Held(b"with an end", "x/y", end))
            case _:
                pass
        if i < LARGE:
            siblings = [Held(chance.randbytes(MIB))]
        yield Record(i, key, tuple(siblings))


def contents(found: Iterator[Record]) -> Contents:
    """What each key holds: equal siblings, which a put tried again leaves, once, and ends by the hour."""
    return {
        record.key: {(h.value, h.content_type, round(h.expiry / HOUR_MS)) for h in record.siblings}
        for record in found
    }


def stored(bucket: Bucket) -> Contents:
    keys = list(bucket.scan_keys(timeout=PATIENCE))
    batches = (keys[i : i + 50] for i in range(0, len(keys), 50))
    results = (result for batch in batches for result in bucket.get_many(batch, timeout=PATIENCE).values())
    return contents(Record(0, result.key, tuple(map(held, result.siblings))) for result in results)


class Kills:
    """Kills one node after the other, and starts it again, at certain places of what is imported or exported.

    Never two at once: then there would be no quorum for what both hold.
    """

    def __init__(self, cluster: LocalCluster, starter: Executor) -> None:
        self._cluster = cluster
        self._starter = starter
        self._nodes = cycle(cluster.nodes)
        self._down = ""
        self._starting: Future[None] | None = None
        self.count = 0

    def during(self, items: Iterator[T]) -> Iterator[T]:
        """These items, and a kill or a start now and then; in the end all nodes are there again."""
        for i, item in enumerate(items, 1):
            if i % STEP == 0 and i <= 2 * KILLS * STEP:
                self._next()
            yield item
        if self._down:
            self._next()
        self._settle()

    def _next(self) -> None:
        self._settle()
        if self._down:
            self._starting = self._starter.submit(self._cluster.start, [self._down])
            self._down = ""
        else:
            self._down = next(self._nodes)
            self._cluster.kill(self._down)
            self.count += 1

    def _settle(self) -> None:
        """Wait until the node that is starting serves."""
        if self._starting is not None:
            self._starting.result()
            self._starting = None


def test_a_backup_comes_back_although_nodes_are_killed_meanwhile(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """While records are put there, while they are exported, and while they come back to emptied nodes."""
    wanted = contents(records(random.Random(7)))
    with ThreadPoolExecutor(1) as starter:
        kills = Kills(cluster, starter)
        with connect(cluster.endpoints, timeout=10) as client:
            bucket = client.bucket("mixed")
            report = Importer(bucket, PATIENCE).run(kills.during(records(random.Random(7))))
            # a write whose outcome was unknown is read again, and is there as often as not
            assert (report.imported + report.unchanged, report.bad.count) == (RECORDS, 0)
            exporter = Exporter(bucket, PATIENCE, at_once=2)
            lines = (line for part in exporter.export() for line in part.splitlines(keepends=True))
            with (tmp_path / "backup").open("wb") as file:
                file.writelines(kills.during(lines))
            assert (exporter.report.exported, exporter.report.left_out.count) == (RECORDS, 0)
            some = next(bucket.keys())
            kept = bucket.get(some).context
        cluster.stop()
        for node in cluster.nodes:
            shutil.rmtree(cluster.directory / node / "data")
        cluster.start()
        with connect(cluster.endpoints, timeout=10) as client, (tmp_path / "backup").open("rb") as file:
            bucket = client.bucket("mixed")
            assert list(bucket.keys()) == []
            records_back = ExportReader().records(kills.during(Source(file).lines()))
            report = Importer(bucket, PATIENCE).run(records_back)
            assert report.imported + report.unchanged == RECORDS
            assert (report.bad.count, report.duplicates.count) == (0, 0)
            assert stored(bucket) == wanted
            with pytest.raises(InvalidRequest, match="context: was not given out by this cluster"):
                bucket.put(some, b"over what was seen before", context=kept)
            assert stored(bucket) == wanted
    assert kills.count == 3 * KILLS
