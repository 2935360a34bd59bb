"""What nodes count of what is under way: never negative, and zero when nothing is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from kvstore.quorum.hints import HINT_KEYSPACE
from kvstore.sim.checker import Violation
from kvstore.sim.invariants.watched import Watched

_HINTS = (HINT_KEYSPACE, bytes([HINT_KEYSPACE[0] + 1]))
"""Where an engine keeps hints: first key, and the first behind them."""


class Balances:
    """The counts of all nodes; raises Violation."""

    def __init__(self, hosts: Mapping[str, Watched], counts: Counter[str]) -> None:
        self._hosts = hosts
        self._counts = counts

    def turned(self, node: str) -> None:
        """A node has done what an input wanted."""
        host = self._hosts[node]
        if host.node is None:
            return
        base = host.node.base
        self._counts["counts are not negative"] += 1
        counted = [base.admission.unanswered, base.admission.bytes]
        if not base.local.hints.empty:
            counted += [
                min(each.count, each.bytes) for each in base.local.hints.all_pending(host.machine.wall)
            ]
        if min(counted) < 0:
            raise Violation(f"a count of {node} is negative: requests, bytes, hints are {counted}")

    def busy(self) -> list[str]:
        """What is not zero as it must be when nothing is under way; hosts that are up."""
        found: list[str] = []
        for name, host in self._hosts.items():
            if host.node is None:
                continue
            base = host.node.base
            self._counts["counts are zero when calm"] += 1
            counted = {
                "requests": base.admission.unanswered,
                "bytes": base.admission.bytes,
                "clients": len(host.requests),
                "hints": sum(each.count for each in base.local.hints.all_pending(host.machine.wall)),
                "hints on the disk": sum(1 for _, kept in host.engine.scan_around(*_HINTS) if kept),
            }
            found += [f"{name}: {count} {what}" for what, count in counted.items() if count]
        return found
