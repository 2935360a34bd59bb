"""Deletes stay deleted."""

from __future__ import annotations

from collections import Counter

from jepsen.checkers.causality import Causality, events
from jepsen.checkers.result import Offence, Result, verdict
from jepsen.checkers.values import DELETES, READS, described, seen_values, shown
from jepsen.history import History, Op


class Delete:
    """No value that an acknowledged delete had seen is in a read that began after it ended.

    Each value is written once per key. What a delete has seen is in its invocation's `extra`; a blind one
    deletes nothing (jepsen.checkers).
    """

    name = "delete"

    def check(self, history: History) -> Result:
        """See Checker. Unknown if no delete had seen anything that a later read could have shown."""
        counts: Counter[str] = Counter({"deletes": 0, "values deleted": 0, "reads after a delete": 0})
        offences: list[Offence] = []
        for operations in history.by_key.values():
            causality = Causality(operations)
            deleted: dict[int, Op] = {}
            gone = 0
            at_start: dict[int, int] = {}
            for op, operation in events(operations):
                if op is operation.invocation:
                    at_start[op.index] = gone
                elif op.type == "ok" and op.f in DELETES:
                    past = causality.writes[operation.invocation.index].past
                    counts["deletes"] += 1
                    counts["values deleted"] += (past & ~gone).bit_count()
                    deleted.update(dict.fromkeys(_bits_of(causality, past & ~gone), op))
                    gone |= past
                elif op.type == "ok" and op.f in READS:
                    before = at_start[operation.invocation.index]
                    counts["reads after a delete"] += bool(before)
                    for value in causality.values(causality.mask(seen_values(op.value)) & before):
                        by = deleted[causality.mask([value])].index
                        reason = f"{described(operation)}: {shown(value)} is back after delete {by}"
                        offences.append(Offence(op.index, reason))
        return Result(
            self.name, verdict(offences, exercised=counts["reads after a delete"]), counts, tuple(offences)
        )


def _bits_of(causality: Causality, mask: int) -> list[int]:
    return [causality.mask([value]) for value in causality.values(mask)]
