"""Every state that can be reached from a first one: breadth first, so that the first bad one is a nearest."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

State = TypeVar("State", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Explored:
    """How many states and steps there were, and the way to the first bad one (empty: there is none)."""

    states: int
    steps: int
    wrong: str = ""
    way: tuple[str, ...] = ()


def explore(
    first: State,
    successors: Callable[[State], Iterable[tuple[str, State]]],
    wrong: Callable[[State], str],
    most: int = 10_000_000,
) -> Explored:
    """All of them, unless `wrong` says what is wrong with one; raises AssertionError beyond `most`."""
    came: dict[State, tuple[State, str] | None] = {first: None}
    level, steps = [first], 0
    while level:
        following: list[State] = []
        for state in level:
            for label, found in successors(state):
                steps += 1
                if found in came:
                    continue
                came[found] = (state, label)
                if reason := wrong(found):
                    way = tuple(reversed(list(_back(came, found))))
                    return Explored(len(came), steps, reason, way)
                following.append(found)
        assert len(came) <= most, "more states than were meant"
        level = following
    return Explored(len(came), steps)


def _back(came: dict[State, tuple[State, str] | None], state: State) -> Iterator[str]:
    while (before := came[state]) is not None:
        state, label = before
        yield label


class Numbers(Generic[State]):
    """Numbers for what states are made of: equal things have equal ones."""

    def __init__(self) -> None:
        self._numbers: dict[State, int] = {}
        self.things: list[State] = []

    def of(self, thing: State) -> int:
        number = self._numbers.get(thing)
        if number is None:
            number = self._numbers[thing] = len(self.things)
            self.things.append(thing)
        return number
