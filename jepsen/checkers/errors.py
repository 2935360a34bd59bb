"""Error typing: what was said to be not applied is never seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from jepsen.checkers.result import Offence, Result
from jepsen.checkers.values import READS, WRITES, described, freeze, seen_values, shown
from jepsen.history import History, Operation


class Errors:
    """No read returns a value whose write ended with `fail`, unless another write of it may have happened.

    An `info` may be seen or not. `counts` tells how many writes ended how, and the errors by their text.
    """

    name = "errors"

    def check(self, history: History) -> Result:
        """See Checker. Valid also if nothing failed: then there was nothing to be wrong about."""
        counts: Counter[str] = Counter({"ok": 0, "fail": 0, "info": 0, "info seen": 0, "fail seen": 0})
        errors: Counter[str] = Counter()
        offences: list[Offence] = []
        for operations in history.by_key.values():
            refused, unsure = _by_value(operations)
            seen: set[Hashable] = set()
            for operation in operations:
                counts[operation.type] += 1
                completion = operation.completion
                if completion is not None and completion.error:
                    errors[completion.error] += 1
                if completion is None or operation.type != "ok" or completion.f not in READS:
                    continue
                values = set(seen_values(completion.value))
                seen |= values
                for value in values & refused.keys():
                    of = refused[value].invocation
                    reason = f"{shown(value)} was refused as not applied to process {of.process} ({of.index})"
                    offences.append(Offence(completion.index, f"{described(operation)}: {reason}"))
            counts["info seen"] += len(seen & unsure)
            counts["fail seen"] += len(seen & refused.keys())
        return Result(self.name, not offences, counts, tuple(offences), {"errors": dict(errors)})


def _by_value(operations: list[Operation]) -> tuple[dict[Hashable, Operation], set[Hashable]]:
    """The values that nobody but failed writes wrote, and those of unknown outcome."""
    refused: dict[Hashable, Operation] = {}
    unsure: set[Hashable] = set()
    possible: set[Hashable] = set()
    for operation in operations:
        f, value = operation.invocation.f, operation.invocation.value
        if f == "cas" and operation.type != "fail":
            possible.add(freeze(value[1]))
        if f not in WRITES:
            continue
        if operation.type == "fail":
            refused[freeze(value)] = operation
        else:
            possible.add(freeze(value))
            if operation.type == "info":
                unsure.add(freeze(value))
    return {value: operation for value, operation in refused.items() if value not in possible}, unsure
