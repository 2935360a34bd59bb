"""Replicas converge: after healing all of them hold the same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from jepsen.checkers.result import Offence, Result, verdict
from jepsen.history import History

Dump = Mapping[str, bytes]
"""What one replica holds: the encoded version of each key."""


class Convergence:
    """All dumps of replicas are equal, byte by byte.

    `dumps` has, for each group of nodes that replicate the same keys (a partition, or all keys where each
    node has all), what each node of it holds.
    """

    name = "convergence"

    def __init__(self, dumps: Mapping[str, Mapping[str, Dump]]) -> None:
        self._dumps = dumps

    def check(self, history: History) -> Result:
        """See Checker. Unknown if no key is on two nodes."""
        counts: Counter[str] = Counter({"keys": 0, "replicas": 0, "missing": 0, "different": 0})
        offences: list[Offence] = []
        for group, nodes in self._dumps.items():
            counts["replicas"] += len(nodes)
            for key in sorted(set().union(*nodes.values())):
                counts["keys"] += len(nodes) > 1
                missing = sorted(node for node, dump in nodes.items() if key not in dump)
                versions = {dump[key] for dump in nodes.values() if key in dump}
                if missing:
                    counts["missing"] += 1
                    offences.append(Offence(None, f"{key} ({group}) is missing on {', '.join(missing)}"))
                if len(versions) > 1:
                    counts["different"] += 1
                    offences.append(Offence(None, f"{key} ({group}) has {len(versions)} different versions"))
        return Result(self.name, verdict(offences, exercised=counts["keys"]), counts, tuple(offences))
