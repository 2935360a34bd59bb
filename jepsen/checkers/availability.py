"""Availability: which share of operations succeeded while a fault lasted, by group, second by second."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from operator import attrgetter

from jepsen.checkers.result import Offence, Result, Verdict
from jepsen.history import History, Operation, Period

NANOSECONDS = 1_000_000_000
_NODE = re.compile(r"n[0-9]+")

Grouping = Callable[[Operation, Period], str | None]
"""The group of an operation in a period, None if it is in none."""


def side(operation: Operation, period: Period) -> str | None:
    """Of a split the side of the host that asked: "majority" if more than half of all nodes are there.

    Hosts of clients stand on sides too, and do not count.
    """
    value = period.value if isinstance(period.value, list) else []
    sides = [each for each in value if isinstance(each, list)]
    nodes = {host for each in sides for host in each if _NODE.fullmatch(host)}
    for each in sides:
        if operation.invocation.node in each:
            here = sum(1 for host in each if host in nodes)
            return "majority" if here * 2 > len(nodes) else "minority"
    return None


class Availability:
    """At least that share of the operations of each group was ok in the periods of the nemesis.

    `minimum` is the share, 0 to 1, by group. What was invoked in the first `ignore` seconds of a period does
    not count. Only operations of `fs` count, and only periods whose name is in `periods`; empty means all.
    An operation without a completion, and one that ended with `info`, is not ok.
    """

    def __init__(
        self,
        minimum: Mapping[str, float],
        group: Grouping = side,
        *,
        ignore: float = 3.0,
        fs: Collection[str] = (),
        periods: Collection[str] = (),
        name: str = "availability",
    ) -> None:
        self.name = name
        self._minimum = dict(minimum)
        self._group = group
        self._ignore = round(ignore * NANOSECONDS)
        self._fs = frozenset(fs)
        self._periods = frozenset(periods)

    def check(self, history: History) -> Result:
        """See Checker. A group of which nothing counts is an offence; unknown if nothing counts at all.

        `data["series"]` has for each group a list of [second of the run, ok, all].
        """
        series: dict[str, dict[int, list[int]]] = defaultdict(dict)
        ok: Counter[str] = Counter(dict.fromkeys(self._minimum, 0))
        total: Counter[str] = Counter(dict.fromkeys(self._minimum, 0))
        for group, operation in self._counted(history):
            good = operation.type == "ok"
            second = series[group].setdefault(operation.invocation.time // NANOSECONDS, [0, 0])
            second[0] += good
            second[1] += 1
            ok[group] += good
            total[group] += 1
        shares = {group: ok[group] / total[group] for group in sorted(total) if total[group]}
        offences = []
        for group, least in self._minimum.items():
            if group not in shares:
                offences.append(Offence(None, f"{group}: no operation counted"))
            elif shares[group] < least:
                of = f"{ok[group]:,} of {total[group]:,}"
                offences.append(
                    Offence(None, f"{group}: {shares[group]:.2%} ({of}), at least {least:.2%} is due")
                )
        counts: dict[str, float] = {}
        for group in sorted(total):
            counts |= {f"{group} ok": ok[group], f"{group} all": total[group]}
            counts |= {f"{group} share": round(shares[group], 4)} if group in shares else {}
        lists = {group: [[s, *of[s]] for s in sorted(of)] for group, of in series.items()}
        if not shares:
            offences = [Offence(None, "no operation counted")]
        valid: Verdict = not offences if shares else "unknown"
        return Result(self.name, valid, counts, tuple(offences), {"series": lists})

    def _counted(self, history: History) -> Iterator[tuple[str, Operation]]:
        """Each operation that counts, once, with its group."""
        operations = [o for o in history.operations if not self._fs or o.invocation.f in self._fs]
        begins = attrgetter("invocation.time")
        done: set[int] = set()
        for period in history.periods:
            if self._periods and period.name not in self._periods:
                continue
            first = bisect_left(operations, period.start + self._ignore, key=begins)
            for operation in operations[first : bisect_left(operations, period.stop, key=begins)]:
                group = self._group(operation, period)
                if group is not None and operation.invocation.index not in done:
                    done.add(operation.invocation.index)
                    yield group, operation
