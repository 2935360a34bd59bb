"""A causal register with siblings: nothing that was replaced is seen by who has seen what replaced it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from jepsen.checkers.causality import Causality, events
from jepsen.checkers.result import Offence, Result, Verdict
from jepsen.checkers.values import READS, described, seen_values, shown
from jepsen.history import History, Operation, Process


class Causal:
    """Reads of each key respect what its writes saw. Each value is written once per key.

    Always: a read returns only values whose write has begun and was not refused; no value together with one
    that replaced it; and none that was replaced in the eyes of its process, or of a process whose write it
    has seen, before that write. With `strict` (R + W > N) all clients are one: what was acknowledged, or
    returned by a read, before a read began is accounted for by it, and what an acknowledged write had
    replaced by then is gone. Without `sessions` (R + W <= N, or fallbacks count) reads may go back in time:
    those of values that were replaced in the eyes of their process are counted.
    """

    name = "causal"

    def __init__(self, *, strict: bool = False, sessions: bool = True) -> None:
        self._strict = strict
        self._sessions = sessions

    def check(self, history: History) -> Result:
        """See Checker. Unknown without reads, for values written twice, and for contexts out of nowhere."""
        counts: Counter[str] = Counter({"reads": 0, "writes": 0, "siblings": 0})
        offences: list[Offence] = []
        problems: list[Offence] = []
        for operations in history.by_key.values():
            key = _Key(operations, counts, self._strict, self._sessions)
            offences += key.offences
            problems += [Offence(index, reason) for index, reason in key.causality.problems]
        valid: Verdict = not offences
        if not offences and (problems or not counts["reads"]):
            valid = "unknown"
        return Result(self.name, valid, counts, tuple(offences or problems))


class _Key:
    def __init__(
        self, operations: Sequence[Operation], counts: Counter[str], strict: bool, sessions: bool
    ) -> None:
        self.causality = Causality(operations)
        self.offences: list[Offence] = []
        self._replaced: dict[Process, int] = defaultdict(int)
        """For each process what it has seen replaced."""
        self._replaced_at: dict[int, int] = {}
        """For the bit of each value what the writing process had seen replaced."""
        self._established = self._gone = 0
        self._at_start: dict[int, tuple[int, int]] = {}
        for op, operation in events(operations):
            if op is operation.invocation:
                self._begin(operation)
            elif op.type == "ok" and op.f in READS:
                counts["reads"] += 1
                counts["siblings"] += len(seen_values(op.value)) > 1
                counts["went back"] += self._read(operation, strict, sessions)
            elif op.type == "ok" and operation.invocation.index in self.causality.writes:
                counts["writes"] += 1
                write = self.causality.writes[operation.invocation.index]
                self._established |= write.bit
                self._gone |= write.past
                self._replaced[op.process] |= write.past

    def _begin(self, operation: Operation) -> None:
        invocation = operation.invocation
        write = self.causality.writes.get(invocation.index)
        if write is None:
            self._at_start[invocation.index] = (self._established, self._gone)
            return
        self._replaced[invocation.process] |= write.seen and self.causality.past_of(write.seen)
        if write.bit:
            self._replaced_at[write.bit] = self._replaced[invocation.process] | write.past

    def _read(self, operation: Operation, strict: bool, sessions: bool) -> bool:
        """Whether it went back in the eyes of its process."""
        invocation, completion = operation
        assert completion is not None  # it was ok
        returned = 0
        for value in seen_values(completion.value):
            write = self.causality.write_of(value)
            if write is None or write.operation.invocation.index > completion.index:
                self._offends(operation, f"{shown(value)} was not written before")
            elif not write.may_exist:
                self._offends(operation, f"{shown(value)} was said to be not applied")
            else:
                returned |= write.bit
        past = self.causality.past_of(returned)
        self._if_any(operation, returned & past, "was replaced by a value that is there too")
        replaced = returned & self._replaced[invocation.process] & ~past
        if sessions:
            self._if_any(operation, replaced, "had been replaced in the eyes of this process")
        if strict:
            established, gone = self._at_start[invocation.index]
            accounted = returned | past | self.causality.deleted(completion.index)
            self._if_any(operation, established & ~accounted, "is missing though it was established before")
            self._if_any(operation, returned & gone & ~past, "is there though it was replaced before")
        known = past
        for value in self.causality.values(returned):
            write = self.causality.write_of(value)
            known |= self._replaced_at[write.bit] if write else 0
        self._replaced[invocation.process] |= known
        self._established |= returned
        return replaced != 0

    def _if_any(self, operation: Operation, mask: int, reason: str) -> None:
        if mask:
            values = ", ".join(map(shown, self.causality.values(mask)))
            self._offends(operation, f"{values} {reason}")

    def _offends(self, operation: Operation, reason: str) -> None:
        assert operation.completion is not None  # only replies are judged
        self.offences.append(Offence(operation.completion.index, f"{described(operation)}: {reason}"))
