"""Session guarantees: each process reads its own writes, and never reads back in time.

Terry and others, "Session Guarantees for Weakly Consistent Replicated Data" (1994).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

from jepsen.checkers.causality import Causality, events
from jepsen.checkers.result import Offence, Result, verdict
from jepsen.checkers.values import DELETES, READS, WRITES, described, freeze, seen_values, shown
from jepsen.history import History, Operation, Process

_OWN = "read your writes"
_READ = "monotonic reads"


class Session:
    """Read your writes and monotonic reads, of each process and key. Each value is written once per key.

    Where reads return lists, of siblings, whatever the process wrote or read must be accounted for by what it
    reads later (jepsen.checkers.causality). Where they return one value the process must not come back to
    a value that it has left for another, nor to none unless there was a delete.
    """

    name = "session"

    def check(self, history: History) -> Result:
        """See Checker. Unknown if no read had anything to hold on to."""
        counts: Counter[str] = Counter({"reads": 0, _OWN: 0, _READ: 0})
        offences: list[Offence] = []
        for operations in history.by_key.values():
            lists = any(
                isinstance(c.value, (list, tuple))
                for i, c in operations
                if c and c.type == "ok" and i.f in READS
            )
            (_siblings if lists else _single)(operations, counts, offences)
        checked = counts["reads"]
        counts.update({f"{_OWN} broken": 0, f"{_READ} broken": 0})
        counts.update(f"{offence.reason.split(':')[0]} broken" for offence in offences)
        return Result(self.name, verdict(offences, exercised=checked), counts, tuple(offences))


def _siblings(operations: Sequence[Operation], counts: Counter[str], offences: list[Offence]) -> None:
    causality = Causality(operations)
    own: dict[Process, int] = defaultdict(int)
    read: dict[Process, int] = defaultdict(int)
    for op, operation in events(operations):
        if op is operation.invocation or op.type != "ok":
            continue
        process = op.process
        write = causality.writes.get(operation.invocation.index)
        if write is not None:
            own[process] |= write.bit
        elif op.f in READS:
            returned = causality.mask(seen_values(op.value))
            accounted = causality.accounted(returned, op.index)
            counts["reads"] += bool(own[process] | read[process])
            for known, guarantee in ((own[process], _OWN), (read[process] & ~own[process], _READ)):
                counts[guarantee] += bool(known)
                if known & ~accounted:
                    lost = ", ".join(map(shown, causality.values(known & ~accounted)))
                    offences.append(Offence(op.index, f"{guarantee}: {described(operation)} lost {lost}"))
            read[process] |= returned
            # What is replaced stays accounted for by what replaced it, which is known from now on.
            own[process] &= ~causality.past_of(returned)
            read[process] &= ~causality.past_of(returned)


def _single(operations: Sequence[Operation], counts: Counter[str], offences: list[Offence]) -> None:
    now: dict[Process, tuple[Hashable, str]] = {}
    left: dict[Process, set[Hashable]] = defaultdict(set)
    deletes = False
    for op, operation in events(operations):
        if op is operation.invocation:
            deletes = deletes or op.f in DELETES
            continue
        if op.type != "ok" or not (op.f in READS or op.f in WRITES):
            continue
        value, process = freeze(op.value), op.process
        before, guarantee = now.get(process, (None, _READ))
        if op.f in READS:
            counts["reads"] += process in now
            counts[guarantee] += process in now
            if process in now and (
                value in left[process] or (value is None and before is not None and not deletes)
            ):
                came = f"came back from {shown(before)}"
                offences.append(Offence(op.index, f"{guarantee}: {described(operation)} {came}"))
                continue
        if value != before:
            if before is not None:
                left[process].add(before)
            now[process] = (value, _READ if op.f in READS else _OWN)
