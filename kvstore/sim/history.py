"""What clients did and were told, in virtual time: the input of the checker."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

FOR_EVER = float("inf")
SESSIONS = "sessions"
"""The bucket that clients read and write through a session."""
SESSION_SECONDS = 10.0
"""So long a session remembers a key: less than the age at which tombstones are reaped here."""


class Result(Enum):
    """How an operation ended for its client."""

    OK = "ok"
    NOT_APPLIED = "not applied"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Write:
    """A put of a value never used before, or a delete (`value` None). `seen` are values its context saw."""

    client: str
    bucket: str
    key: bytes
    value: bytes | None
    seen: frozenset[bytes]
    began: float
    ended: float = FOR_EVER
    result: Result = Result.UNKNOWN

    @property
    def may_exist(self) -> bool:
        """Whether it was or may be applied."""
        return self.result is not Result.NOT_APPLIED


@dataclass(frozen=True, slots=True)
class Read:
    """A read that succeeded: the values it returned."""

    client: str
    bucket: str
    key: bytes
    values: frozenset[bytes]
    began: float
    ended: float


@dataclass(slots=True)
class History:
    """All operations of a run; `outcomes` counts every one by kind and end."""

    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
