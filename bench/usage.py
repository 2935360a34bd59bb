"""What a load has cost the cluster: CPU time and frames, as differences between two looks at it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from kvstore.local.cluster import LocalCluster

if TYPE_CHECKING:
    from kvstore.client.status import NodeStatus


@dataclass(frozen=True, slots=True)
class Usage:
    """Totals so far: seconds of CPU, frames and messages between nodes, syncs."""

    node_cpu: float
    client_cpu: float
    frames: int
    messages: int
    session_frames: int
    session_calls: int
    syncs: int

    def since(self, before: Usage) -> Usage:
        """What has come to it since `before`."""
        return Usage(
            self.node_cpu - before.node_cpu,
            self.client_cpu - before.client_cpu,
            self.frames - before.frames,
            self.messages - before.messages,
            self.session_frames - before.session_frames,
            self.session_calls - before.session_calls,
            self.syncs - before.syncs,
        )


def look(cluster: LocalCluster, statuses: Sequence[NodeStatus]) -> Usage:
    """The totals now; node processes with their workers."""
    counters = [status.counters for status in statuses]
    return Usage(
        sum(cpu(pid) for pid in map(cluster.pid, cluster.nodes) if pid),
        sum(os.times()[:2]),
        sum(c.frames_sent for c in counters),
        sum(c.messages_sent for c in counters),
        sum(c.session_frames_received for c in counters),
        sum(c.session_calls_received for c in counters),
        sum(c.syncs for c in counters),
    )


def cpu(pid: int) -> float:
    """Seconds of CPU that a process and its children have used so far."""
    process = psutil.Process(pid)
    return float(sum(sum(p.cpu_times()[:2]) for p in (process, *process.children())))
