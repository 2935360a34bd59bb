"""Sets, element by element, as Jepsen's checker `set-full`: what was added stays, and when it is seen.

An element is *known* from the end of its add, or of the first read that returned it. It is *lost* if a read
that began after it was known lacks it, and no read that began later has it; *stable* if from some read on
all have it; *never read* if neither can be said. A stable one was *stale* as long as a read that began after
it was known lacked it: its stable latency is the time from known to the end of that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from jepsen.checkers.latency import quantiles
from jepsen.checkers.result import Offence, Result, Verdict
from jepsen.checkers.values import freeze, seen_values, shown
from jepsen.history import History, Op, Operation


@dataclass(slots=True)
class _Element:
    value: Hashable
    add: Operation
    known: Op | None = None
    last_present: Op | None = None
    last_absent: Op | None = None
    """Invocations of the last reads that had it, and that lacked it."""

    @property
    def stale_for(self) -> int:
        """Nanoseconds from known to the last read that lacked it."""
        if self.known is None or self.last_absent is None:
            return 0
        return max(0, self.last_absent.time - self.known.time)


class SetFull:
    """No element whose add was acknowledged, or that was read, is ever lost.

    Elements are added once per key, and every read of a key returns all of its elements. With `linearizable`
    stale elements are offences too: every read sees what was known when it began.
    """

    name = "set-full"

    def __init__(self, *, linearizable: bool = False) -> None:
        self._linearizable = linearizable

    def check(self, history: History) -> Result:
        """See Checker. Unknown if no element is stable or lost."""
        counts: Counter[str] = Counter(dict.fromkeys(_COUNTS, 0))
        offences: list[Offence] = []
        latencies: list[int] = []
        for operations in history.by_key.values():
            elements = _elements(operations)
            _reads(operations, elements, counts, offences)
            for element in elements.values():
                self._judge(element, counts, offences, latencies)
        valid: Verdict = not offences
        if not offences and not counts["stable"]:
            valid = "unknown"
        data = {"stable latency": quantiles(sorted(latencies))} if latencies else {}
        return Result(self.name, valid, counts, tuple(offences), data)

    def _judge(
        self, element: _Element, counts: Counter[str], offences: list[Offence], latencies: list[int]
    ) -> None:
        type = element.add.type
        present, absent, known = element.last_present, element.last_absent, element.known
        counts["attempted"] += 1
        counts["acknowledged"] += type == "ok"
        counts["recovered"] += type == "info" and present is not None
        where = element.add.completion or element.add.invocation
        if type == "fail" and present is not None:
            counts["failed but read"] += 1
            offences.append(Offence(present.index, f"{shown(element.value)} was not applied, but is read"))
        if known and absent and absent.index > known.index and (not present or present.index < absent.index):
            counts["lost"] += 1
            reason = (
                f"{shown(element.value)} is lost: known since {known.index}, not in the read {absent.index}"
            )
            offences.append(Offence(where.index, reason))
        elif present and (not absent or absent.index < present.index):
            counts["stable"] += 1
            latencies.append(element.stale_for)
            if element.stale_for:
                counts["stale"] += 1
                if self._linearizable and absent and known:
                    reason = f"known since {known.index}, but not in the read {absent.index}"
                    offences.append(Offence(absent.index, f"{shown(element.value)} is stale: {reason}"))
        else:
            counts["never read"] += type == "ok"


_COUNTS = (
    *("attempted", "acknowledged", "stable", "stale", "lost", "never read", "recovered", "failed but read"),
    *("duplicated", "unexpected", "reads"),
)


def _elements(operations: Sequence[Operation]) -> dict[Hashable, _Element]:
    elements = {}
    for operation in operations:
        if operation.invocation.f == "add":
            value = freeze(operation.invocation.value)
            known = operation.completion if operation.type == "ok" else None
            elements[value] = _Element(value, operation, known)
    return elements


def _reads(
    operations: Sequence[Operation],
    elements: dict[Hashable, _Element],
    counts: Counter[str],
    offences: list[Offence],
) -> None:
    """Note for each element the last reads with and without it, looking at the last read first."""
    reads = [o for o in operations if o.invocation.f == "read" and o.type == "ok"]
    without_present, without_absent = set(elements), set(elements)
    unborn = sorted(elements.values(), key=lambda element: element.add.invocation.index)
    first_seen: dict[Hashable, Op] = {}
    for invocation, completion in sorted(reads, key=lambda read: read.invocation.index, reverse=True):
        assert completion is not None  # it was ok
        counts["reads"] += 1
        returned = seen_values(completion.value)
        present = set(returned)
        _odd(completion, returned, elements, counts, offences)
        for value in present & elements.keys():
            if value not in first_seen or completion.index < first_seen[value].index:
                first_seen[value] = completion
        for value in present & without_present:
            elements[value].last_present = invocation
        without_present -= present
        # An add that was invoked after this read began cannot be missing in it.
        while unborn and unborn[-1].add.invocation.index > invocation.index:
            without_absent.discard(unborn.pop().value)
        for value in without_absent - present:
            elements[value].last_absent = invocation
        without_absent &= present
    for value, read in first_seen.items():
        known = elements[value].known
        if known is None or read.index < known.index:
            elements[value].known = read


def _odd(
    read: Op,
    returned: Sequence[Hashable],
    elements: dict[Hashable, _Element],
    counts: Counter[str],
    offences: list[Offence],
) -> None:
    """Elements that are there twice, or that nobody had begun to add when the read ended."""
    if len(set(returned)) != len(returned):
        twice = [value for value, times in Counter(returned).items() if times > 1]
        counts["duplicated"] += len(twice)
        offences.append(Offence(read.index, f"{', '.join(map(shown, twice))} is there more than once"))
    for value in returned:
        element = elements.get(value)
        if element is None or element.add.invocation.index > read.index:
            counts["unexpected"] += 1
            offences.append(Offence(read.index, f"{shown(value)} was never added before"))
