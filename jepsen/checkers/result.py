"""What a checker says of a history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from jepsen.history import History

Verdict = Literal[True, False, "unknown"]
"""`unknown`: it could not be decided, in time or from what is there. It is not a pass."""


@dataclass(frozen=True, slots=True)
class Offence:
    """One operation that breaks a promise: the `index` of its Op (None: no single one) and why, in a line."""

    index: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict of the checker `name`, what it counted, and which operations offend.

    `data` is what only this checker has to say: a table, series, per key. It is JSON.
    """

    name: str
    valid: Verdict
    counts: Mapping[str, float] = field(default_factory=dict)
    offences: tuple[Offence, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """One line for people."""
        verdict = {True: "valid", False: "INVALID", "unknown": "UNKNOWN"}[self.valid]
        counts = ", ".join(f"{name} {value:,}" for name, value in self.counts.items())
        first = f"; first: {self.offences[0].reason}" if self.offences else ""
        return f"{self.name}: {verdict} ({counts}){first}"


class Checker(Protocol):
    """Judges histories."""

    @property
    def name(self) -> str:
        """What its results are called."""

    def check(self, history: History) -> Result:
        """Judge one history."""


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on all: False if one is, else unknown if one is."""
    all_ = set(verdicts)
    if False in all_:
        return False
    return "unknown" if "unknown" in all_ else True


def verdict(offences: Iterable[Offence], *, exercised: float) -> Verdict:
    """False if there are offences; unknown if nothing was `exercised`; else True."""
    if any(True for _ in offences):
        return False
    return True if exercised else "unknown"
