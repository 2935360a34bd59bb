"""Settings, frozen and validated once: what is built is what is valid.

A wrong value raises `ConfigError` (from a flag or file) naming the setting, so that everything
behind this module may rely on what it is given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from enum import Enum
from typing import ClassVar, TypeVar

from kvstore.errors import ConfigError, InvalidRequest

E = TypeVar("E", bound=Enum)

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""Form of bucket names and node ids (DESIGN, limits)."""

KIB = 1024
MIB = 1024 * KIB


class QuorumMode(Enum):
    """Whether fallbacks count towards W and R (Dynamo section 4.6)."""

    STRICT = "strict"
    SLOPPY = "sloppy"


class Conflict(Enum):
    """What becomes of concurrent values: all are kept, or the one written last by the clock."""

    SIBLINGS = "siblings"
    LWW = "lww"


@dataclass(frozen=True, slots=True)
class BucketSettings:
    """How the keys of one bucket are replicated.

    `n` replicas hold each key; a read waits for `r` of them, a write for `w`. `ttl` is in seconds,
    0 means for ever. Raises ConfigError when the numbers do not fit together.
    """

    name: str
    n: int = 3
    r: int = 2
    w: int = 2
    quorum: QuorumMode = QuorumMode.STRICT
    conflict: Conflict = Conflict.SIBLINGS
    ttl: int = 0

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ConfigError(f"bucket name {self.name!r} is not of the form {NAME.pattern}")
        if self.n < 1:
            raise ConfigError(f"bucket {self.name}: n={self.n} must be at least 1")
        for setting, value in (("r", self.r), ("w", self.w)):
            if not 1 <= value <= self.n:
                raise ConfigError(f"bucket {self.name}: {setting}={value} must be between 1 and n={self.n}")
        if self.ttl < 0:
            raise ConfigError(f"bucket {self.name}: ttl={self.ttl} must not be negative")


def default_bucket(name: str, replicas: int) -> BucketSettings:
    """Settings of a bucket nobody configured: majorities of the ring's replica count."""
    majority = replicas // 2 + 1
    return BucketSettings(name, n=replicas, r=majority, w=majority)


def parse_bucket(text: str, replicas: int = 3) -> BucketSettings:
    """Read `NAME:n=3,r=2,w=2,quorum=sloppy,conflict=lww,ttl=60`; raises ConfigError.

    What is left out stays at its default; r and w default to majorities of n.
    """
    name, _, rest = text.partition(":")
    if not NAME.fullmatch(name):
        raise ConfigError(f"bucket name {name!r} is not of the form {NAME.pattern}")
    given: dict[str, str] = {}
    for item in filter(None, rest.split(",")):
        setting, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"bucket {name}: {item!r} is not of the form setting=value")
        given[setting] = value
    return bucket_from_settings(name, given, replicas)


def bucket_from_settings(name: str, given: dict[str, str], replicas: int = 3) -> BucketSettings:
    """Build bucket settings from their texts; raises ConfigError for one that is unknown or wrong."""
    known = [field.name for field in fields(BucketSettings) if field.name != "name"]
    for setting in given:
        if setting not in known:
            raise ConfigError(f"bucket {name}: unknown setting {setting!r} (known: {', '.join(known)})")
    numbers = {s: _number(name, s, given[s]) for s in ("n", "r", "w", "ttl") if s in given}
    default = default_bucket(name, max(1, numbers.get("n", replicas)))
    return BucketSettings(
        name,
        n=numbers.get("n", replicas),
        r=numbers.get("r", default.r),
        w=numbers.get("w", default.w),
        quorum=_choice(name, "quorum", given.get("quorum", "strict"), QuorumMode),
        conflict=_choice(name, "conflict", given.get("conflict", "siblings"), Conflict),
        ttl=numbers.get("ttl", 0),
    )


def _number(bucket: str, setting: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"bucket {bucket}: {setting}={text!r} is not a whole number") from None


def _choice(bucket: str, setting: str, text: str, kind: type[E]) -> E:
    try:
        return kind(text)
    except ValueError:
        choices = "|".join(str(member.value) for member in kind)
        raise ConfigError(f"bucket {bucket}: {setting}={text!r} is not one of {choices}") from None


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what a client may send, in bytes or items (DESIGN section 10)."""

    key: int = 4096
    value: int = MIB
    siblings: int = 100
    version: int = 64 * MIB
    """All siblings of a key together, with their context: a client's write that adds to more is refused."""
    batch: int = 1000
    scan_page: int = MIB

    content_type: ClassVar[int] = 255
    """In characters; as of versions (kvstore.versions)."""
    MAX_VALUE: ClassVar[int] = 16 * MIB

    def check_bucket(self, bucket: str) -> None:
        """Raise InvalidRequest unless `bucket` is a bucket name."""
        if not NAME.fullmatch(bucket):
            raise InvalidRequest("bucket", f"{bucket[:80]!r} is not of the form {NAME.pattern}")

    def check_key(self, key: bytes) -> None:
        """Raise InvalidRequest for an empty or oversized key."""
        if not 1 <= len(key) <= self.key:
            raise InvalidRequest("key", f"has {len(key)} bytes, must have 1 to {self.key}")

    def check_value(self, value: bytes) -> None:
        """Raise InvalidRequest for an oversized value."""
        if len(value) > self.value:
            raise InvalidRequest("value", f"has {len(value)} bytes, the limit is {self.value}")

    def check_content_type(self, text: str) -> None:
        """Raise InvalidRequest for an oversized content type."""
        if len(text) > self.content_type:
            raise InvalidRequest(
                "content_type", f"has {len(text)} characters, the limit is {self.content_type}"
            )


MAX_MESSAGE_BYTES = 256 * MIB
"""No frame, request or reply is larger: its receiver would break off the connection."""
MAX_REPLY_BYTES = MAX_MESSAGE_BYTES - 16 * MIB
"""The largest version that a client is sent. What is larger, no replica can hold: it can only be deleted."""

FRAME_BYTES = 4 * MIB
"""Most bytes that one frame of a stream carries, unless a single message is larger."""


@dataclass(frozen=True, slots=True)
class QuorumSettings:
    """Times in seconds and bounds of the coordinator and of hinted handoff."""

    default_timeout: float = 5.0
    max_timeout: float = 60.0
    read_patience: float = 0.25
    """How long one replica may take before a read asks another, whatever the budget of hedges says."""
    hedge_share: float = 0.05
    """Extra reads for each read: the budget of hedges; 0 and no burst: none."""
    hedge_burst: float = 10.0
    """Extra reads that may be saved up."""
    write_patience: float = 2.0
    """How long one replica may take before a write leaves a hint for it."""
    max_clock_drift: float = 3600.0
    """A time further ahead of this node's clock than this does not carry it along (kvstore.hlc)."""
    in_flight: int = 20_000
    """Client requests that one node works on at once; more are refused as overloaded."""
    in_flight_bytes: int = 64 * MIB
    """Bytes of keys' versions that one node's operations hold at once; beyond, requests are refused."""
    hint_interval: float = 1.0
    """Pause after a target has failed to take hints; it doubles with every failure in a row."""
    hint_longest_interval: float = 30.0
    hint_window: int = 64
    """Hints in flight to one target at a time."""
    hint_rate: float = 3_000.0
    """Hints a second that one node replays, to all targets together; fewer under load."""
    hint_byte_rate: float = 16.0 * MIB
    """Bytes a second of such hints."""
    hint_count: int = 1_000_000
    """Hints kept for one target; 0: none, so that only anti-entropy brings home what a node has missed."""
    hint_bytes: int = 1024 * MIB
    hint_age: float = 7 * 86_400.0
    """A hint goes when nothing was written to it for so long."""


@dataclass(frozen=True, slots=True)
class AntiEntropySettings:
    """Times in seconds of anti-entropy (docs/anti-entropy.md)."""

    interval: float = 10.0
    """Between two comparisons with the same peer; infinite: only when an operator asks."""
    settle: float = 1.0
    """After this a difference is looked at again, so that writes in flight do not count."""
    pause: float = 0.005
    """Between two steps; it grows with the load."""
    longest_pause: float = 1.0
    timeout: float = 5.0
    """For an answer of the peer."""
    answer_bytes: int = 256 * KIB
    """Versions in one answer of an exchange; the last one may go beyond."""
    slice: int = 256
    """Entries of a scan that are taken into the trees in one step."""
    rebuild: float = 86_400.0
    """Trees are built anew after this."""
    reap_interval: float = 600.0
    """Between two passes that look for tombstones to reap; infinite: they are kept."""
    reap_age: float = 600.0
    """All members must confirm a tombstone twice, so far apart: more than twice a message's longest way."""
