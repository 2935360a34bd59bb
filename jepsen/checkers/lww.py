"""Last write wins: what is lost is declared, and measured here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from jepsen.checkers.result import Offence, Result, verdict
from jepsen.history import History, Operation


class Lww:
    """Every key ends with one value that was written to it; lost acknowledged writes are counted.

    An acknowledged write is *overwritten* if another that may have happened began after it had ended, *kept*
    if its
    value is the last read, and *lost* otherwise: only concurrent writes, or clocks that are wrong, took it
    away. A
    read is *old* if its value's write had ended before another one began that was acknowledged before the
    read began.
    """

    name = "lww"

    def check(self, history: History) -> Result:
        """See Checker. Unknown without acknowledged writes."""
        counts: Counter[str] = Counter(
            dict.fromkeys(("acknowledged", "kept", "overwritten", "lost", "old reads"), 0)
        )
        offences: list[Offence] = []
        for key, operations in history.by_key.items():
            writes = [o for o in operations if o.invocation.f == "write" and o.type != "fail"]
            reads = [o for o in operations if o.invocation.f == "read" and o.type == "ok"]
            _count(writes, reads, counts)
            counts["old reads"] += sum(_is_old(read, writes) for read in reads)
            final = reads[-1].completion if reads else None
            if final is None or not any(o.type == "ok" for o in writes):
                continue
            values = final.value or []
            if len(values) != 1 or values[0] not in {o.invocation.value for o in writes}:
                offences.append(
                    Offence(final.index, f"{key} ended with {values}, not with one value of its own")
                )
        return Result(self.name, verdict(offences, exercised=counts["acknowledged"]), counts, tuple(offences))


def _count(writes: Sequence[Operation], reads: Sequence[Operation], counts: Counter[str]) -> None:
    last_begun = max((o.invocation.index for o in writes), default=-1)
    final = reads[-1].completion.value if reads and reads[-1].completion else []
    for write in writes:
        if write.type != "ok" or write.completion is None:
            continue
        counts["acknowledged"] += 1
        if write.invocation.value in (final or []):
            counts["kept"] += 1
        elif last_begun > write.completion.index:
            counts["overwritten"] += 1
        else:
            counts["lost"] += 1


def _is_old(read: Operation, writes: Sequence[Operation]) -> bool:
    """Whether a later write, over before this read began, should have hidden what it returned."""
    assert read.completion is not None
    ended = max(
        (
            o.completion.index
            for o in writes
            if o.completion and o.invocation.value in (read.completion.value or [])
        ),
        default=None,
    )
    return ended is not None and any(
        o.type == "ok"
        and o.completion
        and ended < o.invocation.index
        and o.completion.index < read.invocation.index
        for o in writes
    )
