"""Whether a run exercised anything: one that did not proves nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from jepsen.checkers.result import Offence, Result
from jepsen.history import History


class Counts:
    """At least so many operations of each `f` were ok, and each of the faults took effect.

    `minimum` is by `f`. `faults` are the `f` of the nemesis (`start-partition`, `wipe`) that must have taken
    effect at least once, that is, completed without an `error`.
    """

    name = "counts"

    def __init__(self, minimum: Mapping[str, int], faults: Iterable[str] = ()) -> None:
        self._minimum = dict(minimum)
        self._faults = tuple(faults)

    def check(self, history: History) -> Result:
        """See Checker."""
        by_type: Counter[str] = Counter(f"{o.invocation.f} {o.type}" for o in history.operations)
        faults: Counter[str] = Counter()
        for order, effect in history.faults:
            if effect is not None and not effect.error:
                faults[order.f] += 1
        offences = [
            Offence(None, f"only {by_type[f'{f} ok']:,} {f} were ok, {least:,} are the least that count")
            for f, least in self._minimum.items()
            if by_type[f"{f} ok"] < least
        ]
        offences += [Offence(None, f"{f} never took effect") for f in self._faults if not faults[f]]
        if not history.operations:
            offences.append(Offence(None, "there was no operation at all"))
        counts = {"operations": len(history.operations), **dict(sorted(by_type.items()))}
        return Result(self.name, not offences, {**counts, **dict(sorted(faults.items()))}, tuple(offences))
