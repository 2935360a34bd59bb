"""Linearizability: the search of Wing and Gong with Lowe's memory of configurations.

Wing and Gong, "Testing and Verifying Concurrent Objects" (1993): an operation can be the next to take effect
if no other one that has not yet returned before it was invoked; try each, go on from there, go back where it
fails. Lowe, "Testing for linearizability" (2017): a configuration, which is the set of operations that
have taken effect and the state they left, is never searched twice. Each key is a history of its own
(locality: Herlihy and Wing, 1990, section 3.3).

Three things keep histories with unknown outcomes decidable. None of them changes a verdict:

* A read that fits the state is taken at once: it changes nothing, so it is in nobody's way.
* An operation whose outcome is unknown is taken only where one that can be next wants what it leaves
  (`Model.wants`), and of several equal ones the earliest.
* A configuration that has used more of the unknown ones than another that is the same otherwise is not
  searched: whatever follows from it follows from the other one too.
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
        f"{described(blocked)} cannot be linearized: the state could only have been {before}",
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


class _Search:
    def __init__(
        self, model: Model, certain: list[_Taken], unknown: list[_Taken], late: Callable[[], bool]
    ) -> None:
        self._model = model
        self._certain = certain
        self._unknown = unknown
        self._late = late
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
        used = self._searched.setdefault((low, mask, state), [])
        if any(less & unknown == less for less in used):
            return
        used[:] = [more for more in used if more & unknown != unknown]
        used.append(unknown)
        self._stack.append(configuration)

    def _go_on(self, configuration: _Configuration) -> None:
        """Push every configuration that one more operation leads to, the likeliest last."""
        low, mask, state, unknown = configuration
        candidates, bound = self._candidates(low, mask)
        self._note(candidates, bound, state)
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

    def _note(self, candidates: list[int], bound: int, state: Any) -> None:
        """Remember how far the search got, and with what it stood there."""
        if bound > self._furthest:
            self._furthest = bound
            self._states = set()
            self._blocked = next(
                self._certain[c].operation for c in candidates if self._certain[c].returned == bound
            )
        if bound == self._furthest and len(self._states) < 8:
            self._states.add(state)
