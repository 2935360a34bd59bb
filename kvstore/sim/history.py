"""What clients did and were told, in virtual time: the input of the checker."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from kvstore.config import QuorumMode
from kvstore.versions import BucketName, Dot, UserKey

FOR_EVER = float("inf")
SESSIONS = BucketName("sessions")
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
    """A put of a value never used before, or a delete (`value` None). `seen` are values its context saw.

    `w`, `r` and `quorum` are those of the request; 0 and None: as the bucket says. A delete that is `blind`
    has no context: it deletes what a read of `r` sees. `exact`: all clocks were right until it ended.
    """

    client: str
    bucket: BucketName
    key: UserKey
    value: bytes | None
    seen: frozenset[bytes]
    began: float
    ended: float = FOR_EVER
    result: Result = Result.UNKNOWN
    w: int = 0
    quorum: QuorumMode | None = None
    blind: bool = False
    r: int = 0
    ttl: int = 0
    exact: bool = False

    @property
    def may_exist(self) -> bool:
        """Whether it was or may be applied."""
        return self.result is not Result.NOT_APPLIED


@dataclass(frozen=True, slots=True)
class Read:
    """A read that succeeded: the values it returned. For `r`, `quorum` and `exact` see Write."""

    client: str
    bucket: BucketName
    key: UserKey
    values: frozenset[bytes]
    began: float
    ended: float
    r: int = 0
    quorum: QuorumMode | None = None
    exact: bool = False


class Mint(NamedTuple):
    """A write as it came into being: its dot, value (None: a tombstone) and time, and when that was."""

    dot: Dot
    value: bytes | None
    time: int
    at: float


@dataclass(slots=True)
class History:
    """All operations of a run; `outcomes` counts every one by kind and end.

    `mints` has by bucket and key what became of the writes that a node has carried out.
    """

    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    mints: dict[tuple[BucketName, UserKey], list[Mint]] = field(default_factory=dict)
