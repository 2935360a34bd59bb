"""Nemeses: the faults that a run makes. Joining and leaving nodes will be two more, with membership."""

from __future__ import annotations

from jepsen.nemeses.base import Nemesis
from jepsen.nemeses.clocks import Drift, Jump
from jepsen.nemeses.disks import BitFlips, DiskFull, PowerLoss, Wipe
from jepsen.nemeses.links import Duplicate, Reset, SlowLink
from jepsen.nemeses.processes import processes
from jepsen.nemeses.splits import splits

NEMESES: dict[str, Nemesis] = {
    nemesis.name: nemesis
    for nemesis in (
        *splits(), SlowLink(), Reset(), Duplicate(),
        *processes(), Jump(), Drift(), DiskFull(), PowerLoss(), Wipe(), BitFlips(),
    )
}  # fmt: skip

LOSE_DATA = (Wipe.name, BitFlips.name)
"""Those that are over when the data is back."""

_NETWORK = [*(split.name for split in splits()), SlowLink.name, Reset.name, Duplicate.name]
_HOSTS = [
    *(each.name for each in processes()),
    Jump.name,
    Drift.name,
    DiskFull.name,
    PowerLoss.name,
    Wipe.name,
    BitFlips.name,
]

GROUPS: dict[str, list[str]] = {
    "network": _NETWORK,
    "hosts": _HOSTS,
    "all": [*_NETWORK, *_HOSTS],
    "none": [],
}
"""Names for several nemeses."""
