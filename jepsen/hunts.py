"""For each planted defect the run that finds it: the shortest that did (docs/testing.md)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jepsen.run import Options

_RUN = Options((), "", 1, Path(), driver="namespaces", keys=3, fault_seconds=4.0)

HUNTS: dict[str, Options] = {
    "ack-before-quorum": replace(_RUN, workloads=("register",), nemesis="isolate-one", seconds=25),
    "strict-counts-fallbacks": replace(
        _RUN, workloads=("register",), nemesis="split-halves", seconds=30, fault_seconds=8
    ),
    # a write that only one node has taken stays there until anti-entropy finds it, for there are no hints;
    # it is read there, and then that one is killed
    "repair-dropped": replace(
        _RUN,
        workloads=("register",),
        nemesis="kill-many",
        nodes=3,
        seconds=40,
        fault_seconds=2,
        node_flags=("--hint-count=0",),
    ),
    # by this seed the primaries' disks are full when the split ends, and the hints are delivered
    "hint-deleted-before-ack": replace(
        _RUN,
        workloads=("counter",),
        nemesis="split-halves+disk-full",
        quorum="sloppy",
        seed=127,
        seconds=20,
        fault_seconds=5,
    ),
    "ack-before-fsync": replace(_RUN, workloads=("set",), nemesis="power-loss", seconds=15, fault_seconds=3),
    "actor-kept-after-wipe": replace(_RUN, workloads=("set",), nemesis="wipe", seconds=20, fault_seconds=5),
}
