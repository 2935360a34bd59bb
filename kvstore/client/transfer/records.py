"""What moves between a bucket and a file: keys with all their siblings, or what is wrong with a line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from kvstore.client.results import Sibling
from kvstore.config import MIB, Limits
from kvstore.errors import InvalidRequest, KVError
from kvstore.protocol.scan import ScannedKey

LIMITS = Limits(value=Limits.MAX_VALUE)
"""What no cluster takes; the limit of the one at hand is told by its nodes."""
LINE_BYTES = 512 * MIB
"""No record is longer as a line: 64 MiB of siblings, each byte of which may need six characters."""


class BadLine(KVError):
    """A line that cannot be imported, or not as it is; `number` counts from 1, `unit` says what."""

    def __init__(self, number: int, reason: str, unit: str = "line") -> None:
        super().__init__(f"{unit} {number}: {reason}")
        self.number = number
        self.reason = reason


@dataclass(slots=True)
class Problems:
    """How many there were of a kind, and the first of them."""

    SHOWN: ClassVar[int] = 20

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, problem: object) -> None:
        """One more."""
        self.count += 1
        if len(self.first) < self.SHOWN:
            self.first.append(str(problem))


@dataclass(frozen=True, slots=True)
class Held:
    """One value of a key, as a file has it; `expiry` in milliseconds since 1970, 0: never."""

    value: bytes
    content_type: str = ""
    expiry: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """A key with its siblings, and the line that it comes from; `again`: an earlier line had the same key.

    `unit` says what `number` counts, if not lines.
    """

    number: int
    key: bytes
    siblings: tuple[Held, ...]
    again: bool = False
    unit: str = "line"

    @property
    def size(self) -> int:
        """Bytes of its values."""
        return sum(len(held.value) for held in self.siblings)

    def bad(self, reason: str) -> BadLine:
        """What to say of it that cannot be imported."""
        return BadLine(self.number, reason, self.unit)

    def check(self) -> None:
        """Raise BadLine if no cluster would take it."""
        try:
            LIMITS.check_key(self.key)
            for held in self.siblings:
                LIMITS.check_value(held.value)
                LIMITS.check_content_type(held.content_type)
        except InvalidRequest as error:
            raise self.bad(str(error)) from None


Written: TypeAlias = Record | ScannedKey
"""A key with its siblings, to be written to a file."""


def held(sibling: Sibling[bytes]) -> Held:
    """What a file keeps of a sibling that was read."""
    return Held(sibling.value, sibling.content_type, sibling.expiry)


def named(key: bytes) -> str:
    """A key in a message, with whatever cannot be shown as escapes."""
    return repr(key.decode(errors="backslashreplace"))


def check_length(number: int, line: bytes) -> None:
    """Raise BadLine for a line that `Source.lines` has cut off."""
    if len(line) > LINE_BYTES:
        raise BadLine(number, f"has more than {LINE_BYTES:,} bytes")
