"""A backup of mixed records, taken and given back to emptied nodes while others are killed."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kvstore.client.synchronous import Bucket, connect
from kvstore.client.transfer.exporting import Exporter
from kvstore.client.transfer.importing import Importer
from kvstore.client.transfer.lines import ExportReader
from kvstore.client.transfer.records import Held, Record, held
from kvstore.client.transfer.source import Source
from kvstore.config import MIB
from kvstore.local.cluster import LocalCluster
from tests.patience import PATIENCE

RECORDS = int(os.environ.get("KVSTORE_EXPORT_RECORDS", "3000"))
LARGE = RECORDS // 600
HOUR_MS = 3_600_000

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


def interrupted(items: Iterator[bytes], event: Callable[[], object]) -> Iterator[bytes]:
    """These lines; something happens a third of the way."""
    for i, item in enumerate(items):
        if i == RECORDS // 3:
            event()
        yield item


def test_a_backup_comes_back_although_nodes_are_killed_meanwhile(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    wanted = contents(records(random.Random(7)))
    with connect(cluster.endpoints, timeout=10) as client:
        bucket = client.bucket("mixed")
        report = Importer(bucket, PATIENCE).run(records(random.Random(7)))
        assert (report.imported, report.bad.count) == (RECORDS, 0)
        exporter = Exporter(bucket, PATIENCE)
        with (tmp_path / "backup").open("wb") as file:
            file.writelines(interrupted(exporter.lines(), lambda: cluster.kill("n2")))
        assert (exporter.report.exported, exporter.report.left_out.count) == (RECORDS, 0)
    cluster.stop()
    for node in cluster.nodes:
        shutil.rmtree(cluster.directory / node / "data")
    cluster.start()
    with connect(cluster.endpoints, timeout=10) as client, (tmp_path / "backup").open("rb") as file:
        bucket = client.bucket("mixed")
        assert list(bucket.scan_keys()) == []
        lines = interrupted(Source(file).lines(), lambda: cluster.kill("n3"))
        report = Importer(bucket, PATIENCE).run(ExportReader().records(lines))
        assert (report.imported + report.unchanged, report.bad.count, report.duplicates.count) == (
            RECORDS,
            0,
            0,
        )
        cluster.start(["n3"])
        assert stored(bucket) == wanted
