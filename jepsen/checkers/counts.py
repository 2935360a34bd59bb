"""Whether a run exercised anything: one that did not proves nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from jepsen.checkers.result import Offence, Result
from jepsen.history import History, Operation, Period


class Counts:
    """At least so many operations of each `f` were ok, and each of the faults took effect on some operation.

    `minimum` is by `f`. `faults` are the `f` of the nemesis (`start-partition`, `wipe`) that must have taken
    effect at least once, that is, completed without an `error`; and of those that last, once while an
    operation of a client was under way. A run that did less has broken no promise: nothing is known of it.
    """

    name = "counts"

    def __init__(self, minimum: Mapping[str, int], faults: Iterable[str] = ()) -> None:
        self._minimum = dict(minimum)
        self._faults = tuple(faults)

    def check(self, history: History) -> Result:
        """See Checker. A fault that struck nobody is counted as `idle`."""
        by_type: Counter[str] = Counter(f"{o.invocation.f} {o.type}" for o in history.operations)
        faults: Counter[str] = Counter()
        for order, effect in history.faults:
            if effect is not None and not effect.error:
                faults[order.f] += 1
        idle = Counter(f"start-{p.name}" for p in history.periods if not _struck(p, history.operations))
        offences = [
            Offence(None, f"only {by_type[f'{f} ok']:,} {f} were ok, {least:,} are the least that count")
            for f, least in self._minimum.items()
            if by_type[f"{f} ok"] < least
        ]
        offences += [Offence(None, f"{f} never took effect") for f in self._faults if not faults[f]]
        offences += [
            Offence(None, f"{f} was over, each time, while no operation was under way")
            for f in self._faults
            if faults[f] and idle[f] == faults[f]
        ]
        if not history.operations:
            offences.append(Offence(None, "there was no operation at all"))
        counts = {
            "operations": len(history.operations),
            **dict(sorted(by_type.items())),
            **dict(sorted(faults.items())),
            **{f"{f} idle": count for f, count in sorted(idle.items())},
        }
        return Result(self.name, "unknown" if offences else True, counts, tuple(offences))


def _struck(period: Period, operations: Iterable[Operation]) -> bool:
    """Whether an operation was under way in some part of a period."""
    return any(
        invocation.time <= period.stop and (completion is None or completion.time >= period.start)
        for invocation, completion in operations
    )
