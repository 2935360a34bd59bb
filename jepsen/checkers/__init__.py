"""Checkers: each judges a history by one promise, and says which operations break it.

    results = check(history, [Linearizability(Register()), Session(), Counts({"read": 100})])
    results["session"].valid          # True, False or "unknown"
    valid(results)                    # of all together; "unknown" is not a pass

What the checkers expect of operations (jepsen.history.Op), beside Jepsen's own meaning of `type`:

| f | value of the invocation | value of the `ok` |
|---|---|---|
| `read` | None | what it saw: one value, None for nothing, or the list of all siblings or elements |
| `write`, `add` | what is written; for the checkers that say so, each value only once per key | the same |
| `delete` | None | None |
| `cas` | `[old, new]` | the same |

`key` names the object; each is judged by itself. What a write or delete had seen, where the promise is
about that, is told in its invocation by `extra["seen"]`, a list of values, or by `extra["context"]`, the
context it passed (hex): the checkers know a context from the `extra["context"]` of the `ok` of the read
or write that returned it. Without either it is blind, and has seen nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jepsen.checkers.result import Checker, Offence, Result, Verdict, together
from jepsen.history import History

__all__ = ["Checker", "Offence", "Result", "Verdict", "check", "valid"]

Results = Mapping[str, Result]
"""What each checker said, by its name."""


def check(history: History, checkers: Iterable[Checker]) -> dict[str, Result]:
    """Judge a history by each of the checkers, whose names must differ.

    Raises ValueError for two of one name, and what a checker raises for a history it is not made for.
    """
    results: dict[str, Result] = {}
    for checker in checkers:
        if checker.name in results:
            raise ValueError(f"there are two checkers named {checker.name}")
        results[checker.name] = checker.check(history)
    return results


def valid(results: Results) -> Verdict:
    """The verdict on all: False if one of them is, else unknown if one is, or if there are none."""
    return together(result.valid for result in results.values()) if results else "unknown"
