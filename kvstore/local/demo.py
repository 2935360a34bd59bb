"""`make demo`: a cluster takes the world's airports, loses nodes, and loses nothing else.

Every step that does not hold ends it with exit code 1 and one line.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from kvstore.client.synchronous import Bucket, Client, connect
from kvstore.client.transfer.importing import Importer
from kvstore.client.transfer.objects import object_records
from kvstore.client.transfer.records import Record
from kvstore.errors import KVError
from kvstore.local.airports import write_airports
from kvstore.local.cluster import LocalCluster
from kvstore.ring import preference_list

_BUCKET = "airports"
_VICTIM = "n2"
_KILL_AT = 0.4
_DRAIN_SECONDS = 30.0
_IMPORT_PATIENCE = 30.0
_BATCH = 1000
_INTO_THE_BATCH = 0.05


class DemoFailed(Exception):
    """Something did not hold."""


def main() -> None:
    """Run the demo in a temporary directory, and clean up whatever happens."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kvstore-demo-") as directory:
        cluster = LocalCluster.create(Path(directory) / "cluster", first_port=None)
        try:
            _run(cluster, Path(directory))
        except (DemoFailed, KVError) as error:
            sys.exit(f"demo failed: {error}")
        finally:
            cluster.stop()
    _say(f"All of it held, in {time.monotonic() - began:.0f} s.")


def _run(cluster: LocalCluster, directory: Path) -> None:
    cluster.start()
    _say(f"Three nodes serve on {cluster.endpoints}.")
    file = directory / "airports.jsonl"
    records = write_airports(file)
    _say(f"{records:,} airports are in {file.name} ({file.stat().st_size / 1e6:.1f} MB).")
    with connect(cluster.endpoints, timeout=5) as client:
        acknowledged = _import(cluster, client, file, records)
        _read_back(client.bucket(_BUCKET, r=2), acknowledged, f"with R=2 while {_VICTIM} is down")
    cluster.start([_VICTIM])
    _say(f"{_VICTIM} is back, with its data directory as the kill left it.")
    _drain(cluster)
    _others_off(cluster, acknowledged)


def _import(cluster: LocalCluster, client: Client, file: Path, records: int) -> dict[str, bytes]:
    """Import the file; a node is killed on the way. Returns what was acknowledged."""
    acknowledged: dict[str, bytes] = {}

    def remember(record: Record) -> None:
        acknowledged[record.key.decode()] = record.siblings[0].value

    importer = Importer(client.bucket(_BUCKET), _IMPORT_PATIENCE, remember)
    enough = threading.Event()
    killer = threading.Thread(target=_kill_when, args=(enough, cluster))
    killer.start()
    try:
        with file.open("rb") as lines:
            report = importer.run(object_records(_watched(lines, enough, int(records * _KILL_AT)), "icao"))
    finally:
        enough.set()
        killer.join()
    _say(
        f"The import went on: {report.imported:,} stored, {report.unchanged:,} found stored already, "
        f"{report.retried:,} tried again."
    )
    if len(acknowledged) != records:
        raise DemoFailed(f"{len(acknowledged):,} of {records:,} records were acknowledged")
    return acknowledged


def _watched(lines: Iterator[bytes], enough: threading.Event, count: int) -> Iterator[bytes]:
    for number, line in enumerate(lines):
        if number == count:
            enough.set()
        yield line


def _kill_when(enough: threading.Event, cluster: LocalCluster) -> None:
    """A thread of its own, so that the kill falls into the middle of writes under way."""
    enough.wait()
    time.sleep(_INTO_THE_BATCH)
    cluster.kill(_VICTIM)
    _say(f"{_VICTIM} was killed with SIGKILL {_KILL_AT:.0%} into the import.")


def _read_back(bucket: Bucket, expected: dict[str, bytes], how: str) -> None:
    """Each key must have the value that was acknowledged, and no other.

    It may have that value twice, as siblings: when the victim was killed, a put that it coordinated may have
    been durable nowhere else. The client learnt of no outcome, read the key from the other nodes, found
    nothing, and put it again: that put has not seen the first one.
    """
    keys = list(expected)
    twice = 0
    for i in range(0, len(keys), _BATCH):
        for key, result in bucket.get_many(keys[i : i + _BATCH]).items():
            values = [sibling.value for sibling in result.siblings]
            if set(values) != {expected[key]}:
                raise DemoFailed(f"{key}: {len(values)} values {how}, not the one acknowledged")
            twice += len(values) > 1
    _say(f"{len(keys):,} acknowledged keys were read back {how}, each with its value.")
    if twice:
        _say(f"{twice:,} of them have it as two siblings: their put was tried again when {_VICTIM} died.")


def _drain(cluster: LocalCluster) -> None:
    """Wait until no node keeps a hint any more."""
    began = time.monotonic()
    most = 0
    while True:
        statuses = cluster.statuses()
        pending = sum(hints.count for status in statuses.values() for hints in status.hints)
        most = max(most, pending)
        if not pending and len(statuses) == len(cluster.nodes):
            break
        if time.monotonic() - began > _DRAIN_SECONDS:
            raise DemoFailed(f"{pending:,} hints are left after {_DRAIN_SECONDS:g} s")
        time.sleep(0.1)
    delivered = sum(status.counters.hints_delivered for status in statuses.values())
    if not delivered:
        raise DemoFailed("no hint was delivered: the kill came too late to mean anything")
    _say(f"{delivered:,} hints were delivered in {time.monotonic() - began:.1f} s; none is left.")


def _others_off(cluster: LocalCluster, acknowledged: dict[str, bytes]) -> None:
    with connect(cluster.endpoints) as client:
        ring = client.ring().ring
    for node in cluster.nodes:
        if node != _VICTIM:
            cluster.stop_node(node)
    _say(f"All nodes but {_VICTIM} are stopped.")
    owned = {
        key: value
        for key, value in acknowledged.items()
        if _VICTIM in preference_list(ring, ring.partition(_BUCKET, key.encode()), 3)
    }
    with connect(cluster.layout.addresses[_VICTIM], timeout=10) as client:
        _read_back(client.bucket(_BUCKET, r=1), owned, f"from {_VICTIM} alone with R=1")


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
