"""`make bench-transfer`: records written and exported, beside the same records written as plain JSON.

Three nodes on this machine. The records are put by `put_many`, then `kvctl export` writes them to a file,
several times; between two exports Python's json writes the same records to a file. What counts: records a
second of an export, and how many times longer it takes than plain JSON, of one round.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

import kvstore
from bench.usage import look
from kvstore.errors import KVError
from kvstore.local.cluster import LocalCluster

_BATCH = 2000
_BUCKET = "bench"


def _fill(client: kvstore.Client, records: dict[str, str]) -> float:
    """Put all of them; returns how many a second."""
    bucket = client.bucket(_BUCKET, timeout=60)
    begun = time.perf_counter()
    items = list(records.items())
    for first in range(0, len(items), _BATCH):
        bucket.put_many(items[first : first + _BATCH])
    return len(items) / (time.perf_counter() - begun)


def _export(cluster: LocalCluster, file: Path) -> float:
    """Seconds that it takes, the start of the program included."""
    kvctl = (sys.executable, "-m", "kvstore.kvctl.main", "--endpoints", cluster.endpoints)
    begun = time.perf_counter()
    export = (*kvctl, "export", "--bucket", _BUCKET, str(file))
    subprocess.run(export, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def _plain(records: dict[str, str], file: Path) -> float:
    """Seconds in which Python's json writes the same records."""
    begun = time.perf_counter()
    with file.open("w") as lines:
        for key, value in records.items():
            lines.write(json.dumps({"key": key, "siblings": [{"value": value}]}) + "\n")
    return time.perf_counter() - begun


def _node_cpu(cluster: LocalCluster, client: kvstore.Client) -> float:
    answers = [status for status in client.status().values() if not isinstance(status, KVError)]
    return look(cluster, answers).node_cpu


def _run(cluster: LocalCluster, records: dict[str, str], rounds: int, directory: Path) -> None:
    with kvstore.connect(cluster.endpoints) as client:
        print(f"put_many: {_fill(client, records):,.0f} records/s", flush=True)
        rates, ratios = [], []
        for number in range(1, rounds + 1):
            before = _node_cpu(cluster, client)
            took = _export(cluster, directory / "export")
            cpu = (_node_cpu(cluster, client) - before) / len(records)
            plain = _plain(records, directory / "plain")
            rates.append(len(records) / took)
            ratios.append(took / plain)
            size = (directory / "export").stat().st_size
            print(
                f"round {number}: export {rates[-1]:,.0f} records/s ({size / took / 1e6:.1f} MB/s), "
                f"{ratios[-1]:.1f} times plain JSON; CPU of the nodes {cpu * 1e6:.0f} us a record",
                flush=True,
            )
    rate, ratio = statistics.median(rates), statistics.median(ratios)
    print(f"median: {rate:,.0f} records/s, {ratio:.1f} times plain JSON")


@click.command()
@click.option("--records", default=100_000, show_default=True, help="How many.")
@click.option("--size", default=256, show_default=True, help="Bytes of a value.")
@click.option("--rounds", default=3, show_default=True, help="Exports.")
def main(records: int, size: int, rounds: int) -> None:
    """Measure how fast records go into a cluster, and out of it again."""
    letters = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz ", k=2 * size))
    made = {f"user:{i:07d}": letters[i % size : i % size + size] for i in range(records)}
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as directory:
        cluster = LocalCluster.create(Path(directory) / "cluster", first_port=None)
        try:
            cluster.start()
            _run(cluster, made, rounds, Path(directory))
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
