"""Linearizability: the search of Wing and Gong with Lowe's memory of configurations.

Wing and Gong, "Testing and Verifying Concurrent Objects" (1993): an operation can be the next to take effect
if no other one that has not yet returned before it was invoked; try each, go on from there, go back where it
fails. Lowe, "Testing for linearizability" (2017): a configuration, which is the set of operations that
have taken effect and the state they left, is never searched twice. Each key is a history of its own
(locality: Herlihy and Wing, 1990, section 3.3).

Four things keep long histories, and those with unknown outcomes, decidable. None of them changes a verdict:

* A read that fits the state is taken at once: it changes nothing, so it is in nobody's way.
* An operation whose outcome is unknown is taken only where one that can be next wants what it leaves
  (`Model.wants`), and of several equal ones the earliest.
* A configuration that has used more of the unknown ones than another that is the same otherwise is not
  searched: whatever follows from it follows from the other one too.
* A configuration is not searched from which the next read, by the order of returns, cannot be reached
  (`Model.leads`): where texts and sets grow, each order of what is under way leaves another state, and all
  but a few contradict that read at once, not only when its turn comes.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jepsen.checkers.models import INCONSISTENT, Call, Model, Register
from jepsen.checkers.result import Offence, Result, Verdict, together
from jepsen.checkers.values import described, freeze, shown
from jepsen.history import History, Operation

MOST_CONFIGURATIONS = 2_000_000
"""Configurations of one key, some 500 bytes each, after which the answer is `unknown`."""

_NEVER = 1 << 62
_UNSEEN = object()


class _Taken(NamedTuple):
    """An operation as the search sees it: between which indexes of the history it took effect."""

    call: Call
    invoked: int
    returned: int
    operation: Operation


class _Configuration(NamedTuple):
    """The first `low` operations have taken effect, those of `mask` after them, and those of `unknown`."""

    low: int
    mask: int
    state: Any
    unknown: int


@dataclass(slots=True)
class Outcome:
    """What the search says of one key.

    `blocked` is, if invalid, the operation that no order could get past, and `states` are some of the states
    in which the search stood before it.
    """

    valid: Verdict
    configurations: int
    blocked: Operation | None = None
    states: set[Hashable] = field(default_factory=set)


class Linearizability:
    """Each key of the history is linearizable, by a model. The search ends after `seconds` in all."""

    name = "linearizability"

    def __init__(
        self,
        model: Model | None = None,
        seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model: Model = model or Register()
        self._seconds = seconds
        self._clock = clock

    def check(self, history: History) -> Result:
        """See Checker. Raises ValueError for an operation that the model does not have."""
        deadline = self._clock() + self._seconds
        offences, verdicts, keys, configurations = [], [], {}, 0
        for key, operations in history.by_key.items():
            outcome = search(self._model, operations, lambda: self._clock() > deadline)
            verdicts.append(outcome.valid)
            configurations += outcome.configurations
            keys[str(key)] = {"valid": outcome.valid, "configurations": outcome.configurations}
            if outcome.blocked is not None:
                offences.append(_offence(outcome.blocked, outcome.states))
        counts = {
            "operations": len(history.operations),
            "keys": len(keys),
            "undecided keys": verdicts.count("unknown"),
            "configurations": configurations,
        }
        valid = together(verdicts) if verdicts else "unknown"
        return Result(self.name, valid, counts, tuple(offences), {"keys": keys})


def _offence(blocked: Operation, states: set[Hashable]) -> Offence:
    before = " or ".join(sorted(map(shown, states)))
    assert blocked.completion is not None  # only what has returned can block
    return Offence(
        blocked.completion.index,
        f"{described(blocked)} cannot be linearized: no order leads to it from the state {before}",
    )


def search(model: Model, operations: Sequence[Operation], late: Callable[[], bool]) -> Outcome:
    """Whether `operations`, all of one object, are linearizable; unknown once `late()`, asked now and then.

    Raises ValueError for an operation that the model does not have.
    """
    certain, unknown = _taken(model, operations)
    return _Search(model, certain, unknown, late).run()


def _taken(model: Model, operations: Sequence[Operation]) -> tuple[list[_Taken], list[_Taken]]:
    """What certainly happened, by invocation; and what may have happened, equal ones together."""
    certain: list[_Taken] = []
    unknown: dict[Call, list[_Taken]] = defaultdict(list)
    for operation in operations:
        if operation.type == "fail":
            continue
        invocation, completion = operation
        known = operation.type == "ok"
        result = freeze(completion.value) if completion is not None and known else None
        call = model.call(invocation.f, freeze(invocation.value), result, known=known)
        if call is None:
            continue
        if completion is not None and known:
            certain.append(_Taken(call, invocation.index, completion.index, operation))
        else:
            unknown[call].append(_Taken(call, invocation.index, _NEVER, operation))
    return certain, [taken for group in unknown.values() for taken in group]


class _Ahead:
    """The next read of each configuration, and whether it can still be reached."""

    def __init__(self, model: Model, certain: list[_Taken], unknown: list[_Taken]) -> None:
        self._model = model
        self._certain = certain
        reads = [place for place, taken in enumerate(certain) if model.pure(taken.call)]
        self._reads = sorted(reads, key=lambda place: certain[place].returned)
        self._first = self._first_of_each(len(certain))
        self._restarts = [place for place, taken in enumerate(certain) if model.restarts(taken.call)]
        self._unknown_restarts = [place for place, taken in enumerate(unknown) if model.restarts(taken.call)]
        self._unknown = unknown
        self._rivals: dict[int, list[int]] = {}
        self._leading: dict[int, tuple[list[int], int]] = {}

    def _first_of_each(self, operations: int) -> list[int]:
        """For each `low` the first of `reads` that is not below it."""
        order = {place: position for position, place in enumerate(self._reads)}
        first = [len(self._reads)] * (operations + 1)
        for place in range(operations - 1, -1, -1):
            first[place] = min(first[place + 1], order.get(place, len(self._reads)))
        return first

    def look(self, configuration: _Configuration) -> tuple[_Taken | None, bool]:
        """The read that no order leads to, if there is one; and whether no read will ever see this state."""
        low, mask, state, used = configuration
        for position in range(self._first[low], len(self._reads)):
            place = self._reads[position]
            if place < low or mask >> place - low & 1:
                continue
            read = self._certain[place]
            if self._model.leads(state, read.call):
                return None, False
            leading, unknown = self._leading_to(place)
            if unknown & ~used or any(other >= low and not mask >> other - low & 1 for other in leading):
                return None, self._unseen(configuration, place)
            return read, False
        return None, False

    def _unseen(self, configuration: _Configuration, place: int) -> bool:
        """Whether none of the reads that can come before the one at `place` fits the state, now or later."""
        low, mask, state, _ = configuration
        rivals = self._rivals.get(place)
        if rivals is None:
            position = self._reads.index(place)
            before = self._certain[place].returned
            rivals = [o for o in self._reads[position + 1 :] if self._certain[o].invoked < before]
            self._rivals[place] = rivals
        return not any(
            other >= low
            and not mask >> other - low & 1
            and self._model.leads(state, self._certain[other].call)
            for other in rivals
        )

    def _leading_to(self, place: int) -> tuple[list[int], int]:
        """The certain operations, and the set of unknown ones, after which this read is possible again."""
        found = self._leading.get(place)
        if found is None:
            model, read = self._model, self._certain[place]

            def leads(taken: _Taken) -> bool:
                return taken.invoked < read.returned and model.leads(
                    model.step(model.initial, taken.call), read.call
                )

            certain = [other for other in self._restarts if leads(self._certain[other])]
            unknown = sum(1 << other for other in self._unknown_restarts if leads(self._unknown[other]))
            found = self._leading[place] = (certain, unknown)
        return found


class _Search:
    def __init__(
        self, model: Model, certain: list[_Taken], unknown: list[_Taken], late: Callable[[], bool]
    ) -> None:
        self._model = model
        self._certain = certain
        self._unknown = unknown
        self._late = late
        self._ahead = _Ahead(model, certain, unknown)
        self._left_by: dict[Hashable, list[int]] = defaultdict(list)
        for place, taken in enumerate(unknown):
            self._left_by[model.leaves(taken.call)].append(place)
        self._helping: dict[int, tuple[int, ...]] = {}
        self._searched: dict[tuple[int, int, Any], list[int]] = {}
        self._stack: list[_Configuration] = []
        self._furthest = -1
        self._blocked: Operation | None = None
        self._states: set[Hashable] = set()

    def run(self) -> Outcome:
        self._push(_Configuration(0, 0, self._model.initial, 0))
        tried = 0
        while self._stack:
            configuration = self._stack.pop()
            tried += 1
            if tried % 256 == 0 and (self._late() or len(self._searched) > MOST_CONFIGURATIONS):
                return Outcome("unknown", tried)
            if configuration.low == len(self._certain):
                return Outcome(True, tried)
            self._go_on(configuration)
        return Outcome(False, tried, self._blocked, self._states)

    def _push(self, configuration: _Configuration) -> None:
        low, mask, state, unknown = configuration
        read, unseen = self._ahead.look(configuration)
        if read is not None:
            self._note(read.operation, read.returned, state)
            return
        used = self._searched.setdefault((low, mask, _UNSEEN if unseen else state), [])
        if any(less & unknown == less for less in used):
            return
        used[:] = [more for more in used if more & unknown != unknown]
        used.append(unknown)
        self._stack.append(configuration)

    def _go_on(self, configuration: _Configuration) -> None:
        """Push every configuration that one more operation leads to, the likeliest last."""
        low, mask, state, unknown = configuration
        candidates, bound = self._candidates(low, mask)
        first = next(self._certain[place] for place in candidates if self._certain[place].returned == bound)
        self._note(first.operation, bound, state)
        step, certain = self._model.step, self._certain
        next_ = []
        for place in candidates:
            call = certain[place].call
            after = step(state, call)
            if after is INCONSISTENT:
                continue
            if self._model.pure(call):
                self._push(_Configuration(*self._with(low, mask, place), state, unknown))
                return
            next_.append((certain[place].returned, place, after))
        self._push_unknown(configuration, candidates, bound)
        for _, place, after in sorted(next_, key=lambda entry: entry[0], reverse=True):
            self._push(_Configuration(*self._with(low, mask, place), after, unknown))

    def _push_unknown(self, configuration: _Configuration, candidates: list[int], bound: int) -> None:
        low, mask, state, used = configuration
        for place in self._wanted(candidates):
            call, invoked, _, _ = self._unknown[place]
            first_left = place == 0 or self._unknown[place - 1].call != call or used >> place - 1 & 1
            if used >> place & 1 or invoked > bound or not first_left:
                continue
            after = self._model.step(state, call)
            if after is not INCONSISTENT and after != state:
                self._push(_Configuration(low, mask, after, used | 1 << place))

    def _wanted(self, candidates: list[int]) -> set[int]:
        """The unknown ones that a candidate wants, or that one of those wants."""
        wanted: set[int] = set()
        if self._left_by:
            fresh = {unknown for place in candidates for unknown in self._helpers(self._certain[place])}
            while fresh:
                wanted |= fresh
                fresh = {u for place in fresh for u in self._helpers(self._unknown[place])} - wanted
        return wanted

    def _helpers(self, taken: _Taken) -> tuple[int, ...]:
        helpers = self._helping.get(taken.invoked)
        if helpers is None:
            marks = [mark for mark in self._model.wants(taken.call) if mark in self._left_by]
            helpers = tuple(place for mark in marks for place in self._left_by[mark])
            self._helping[taken.invoked] = helpers
        return helpers

    def _candidates(self, low: int, mask: int) -> tuple[list[int], int]:
        """Which operations can be next, and before which index the first of them has returned."""
        certain = self._certain
        candidates = []
        bound = _NEVER
        for place in range(low, len(certain)):
            _, invoked, returned, _ = certain[place]
            if invoked > bound:
                break
            if not mask & 1:
                candidates.append(place)
                bound = min(bound, returned)
            mask >>= 1
        return candidates, bound

    @staticmethod
    def _with(low: int, mask: int, place: int) -> tuple[int, int]:
        mask |= 1 << place - low
        while mask & 1:
            mask >>= 1
            low += 1
        return low, mask

    def _note(self, blocked: Operation, returned: int, state: Any) -> None:
        """Remember how far the search got, and with what it stood there."""
        if returned > self._furthest:
            self._furthest, self._blocked, self._states = returned, blocked, set()
        if returned == self._furthest and len(self._states) < 8:
            self._states.add(state)
