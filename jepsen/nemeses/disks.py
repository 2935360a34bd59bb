"""Faults of disks: full, without power, empty, with flipped bits."""

from __future__ import annotations

import random
from pathlib import Path

from jepsen.cluster import Cluster, ClusterFailed
from jepsen.nemeses.base import NotNow, Value, some
from kvstore.lsm.sstable import MAGIC

_HEALTHY_SECONDS = 30.0
_EQUAL_SECONDS = 60.0
_FLIPS = 3


class DiskFull:
    """No space is left on the disks of some nodes."""

    name = "disk-full"
    longest = 30.0

    def reason_to_skip(self, cluster: Cluster) -> str:
        """See Nemesis."""
        if all(disk.fills for disk in cluster.disks.values()):
            return ""
        return "the nodes have no file systems of their own: that takes root"

    def plan(self, rng: random.Random, cluster: Cluster) -> Value:
        """See Nemesis."""
        return {"nodes": some(rng, cluster.nodes, 1, len(cluster.nodes))}

    async def start(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        for node in value["nodes"]:
            cluster.disks[node].fill()

    async def stop(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis. A node that could not start on a full disk is started."""
        for node in value["nodes"]:
            cluster.disks[node].empty()
        cluster.start(cluster.nodes)


class PowerLoss:
    """Some nodes lose power: what they had not synced is gone. They are started again in the end."""

    name = "power-loss"
    longest = 30.0

    def reason_to_skip(self, cluster: Cluster) -> str:
        """See Nemesis."""
        if all(disk.loses_power for disk in cluster.disks.values()):
            return ""
        return "the nodes have no file systems of their own: that takes root"

    def plan(self, rng: random.Random, cluster: Cluster) -> Value:
        """See Nemesis."""
        everywhere = rng.random() < 0.5
        count = len(cluster.nodes) if everywhere else 1
        return {"nodes": some(rng, cluster.nodes, count, count)}

    async def start(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        # the process first: what it says while its disk goes down, a computer without power would not say
        await cluster.kill(value["nodes"])
        for node in value["nodes"]:
            cluster.disks[node].cut_power()
            cluster.disks[node].power_on()

    async def stop(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        cluster.start(value["nodes"])


class _LosesData:
    """Takes data away from one node. Only when all others have it, else it would be the last copy."""

    longest = 60.0

    def reason_to_skip(self, cluster: Cluster) -> str:
        """See Nemesis."""
        return "" if len(cluster.nodes) >= 3 else "it takes 3 nodes"

    def plan(self, rng: random.Random, cluster: Cluster) -> Value:
        """See Nemesis."""
        return {"nodes": some(rng, cluster.nodes, 1, 1), "seed": rng.randrange(1 << 30)}

    async def start(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis."""
        try:
            await cluster.whole(_HEALTHY_SECONDS)
        except ClusterFailed as error:
            raise NotNow(str(error)) from error
        cluster.data_lost = True
        await cluster.kill(value["nodes"])
        self.take(cluster, value)
        cluster.start(value["nodes"])

    def take(self, cluster: Cluster, value: Value) -> None:
        """Take the data away from a node that does not run."""
        raise NotImplementedError

    async def stop(self, cluster: Cluster, value: Value) -> None:
        """See Nemesis: wait until the data is back, as the next loss could be of another copy."""
        if cluster.data_lost:
            try:
                await cluster.serving(_EQUAL_SECONDS)
                await cluster.converged(_EQUAL_SECONDS)
            except ClusterFailed:
                return  # then there will be no further loss
            cluster.data_lost = False


class Wipe(_LosesData):
    """A node comes back with an empty disk."""

    name = "wipe"

    def take(self, cluster: Cluster, value: Value) -> None:
        """See above."""
        for node in value["nodes"]:
            cluster.disks[node].wipe()


class BitFlips(_LosesData):
    """Bits are flipped in the tables of a node that is stopped meanwhile."""

    name = "bit-flips"

    def take(self, cluster: Cluster, value: Value) -> None:
        """See above."""
        rng = random.Random(value["seed"])
        for node in value["nodes"]:
            tables = sorted(cluster.disks[node].data.rglob("*.sst"))
            if not tables:
                cluster.data_lost = False
                cluster.start([node])
                raise NotNow(f"{node} has no table yet")
            for _ in range(_FLIPS):
                _flip(rng, rng.choice(tables), len(MAGIC))


def _flip(rng: random.Random, path: Path, spared: int) -> None:
    """Flip a bit, but for the last bytes: by them a table says that it is one, and a node does not guess."""
    with path.open("r+b") as file:
        place = rng.randrange(path.stat().st_size - spared)
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))
