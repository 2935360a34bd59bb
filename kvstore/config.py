"""Settings, frozen and validated once: what is built is what is valid.

A wrong value raises `ConfigError` (from a flag or file) naming the setting, so that everything
behind this module may rely on what it is given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Annotated, Any, ClassVar, TypeVar

from kvstore.bounds import (
    Bounds,
    Count,
    CountOrNone,
    Rate,
    Seconds,
    SecondsOrNever,
    SecondsOrNone,
    check_bounds,
)
from kvstore.errors import ConfigError, InvalidRequest

E = TypeVar("E", bound=Enum)

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""Form of bucket names and node ids (DESIGN, limits)."""
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Form of a member's zone and host."""
_PORT = re.compile(r"0{0,4}[1-9][0-9]{0,4}")

KIB = 1024
MIB = 1024 * KIB


def is_port(text: str) -> bool:
    """Whether this is the number of a port, from 1 to 65535."""
    # its length first: Python refuses to read a number of thousands of digits
    return _PORT.fullmatch(text) is not None and int(text) < 65536


def is_address(text: str) -> bool:
    """Whether this is of the form `host:port`, with brackets around an IPv6 address."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    in_brackets = bare is not host
    return (
        bool(bare)
        and not any(c in "[]/@, \t" for c in bare)
        and in_brackets == (":" in bare)
        and is_port(port)
    )


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

    `n` replicas hold each key; a read waits for `r` of them, a write for `w`. `quorum` says whether other
    nodes may stand in for those that are away, `conflict` what becomes of concurrent values. `ttl` is in
    seconds, 0 means for ever. Raises ConfigError when the numbers do not fit together.
    """

    name: str
    n: int = 3
    r: int = 2
    w: int = 2
    quorum: QuorumMode = QuorumMode.STRICT
    conflict: Conflict = Conflict.SIBLINGS
    ttl: int = 0

    @property
    def values(self) -> dict[str, Any]:
        """What is set, by setting, in the order in which they are shown; a choice by its text."""
        found = ((field.name, getattr(self, field.name)) for field in fields(self) if field.name != "name")
        return {name: value.value if isinstance(value, Enum) else value for name, value in found}

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
    usual = default_bucket(name, 1)
    values: dict[str, Any] = {s: _read(name, s, text, getattr(usual, s)) for s, text in given.items()}
    values.setdefault("n", replicas)
    return replace(default_bucket(name, max(1, values["n"])), **values)


def _read(bucket: str, setting: str, text: str, default: object) -> object:
    """A value of the type that the default of its setting has."""
    if isinstance(default, Enum):
        return _choice(bucket, setting, text, type(default))
    return _number(bucket, setting, text)


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


_BESIDE_VALUE = MIB
"""Bytes of a request beside a value, at most: mostly its context, which grows with the history of its key."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what a client may send, in bytes or items (DESIGN section 10).

    Of a real node only `value` is a setting (`--max-value`); `siblings` and `version` are smaller in the
    simulator, so that its runs come up against them.
    """

    value: int = MIB
    siblings: int = 100
    version: int = 64 * MIB
    """All siblings of a key together, with their context: a client's write that adds to more is refused."""

    key: ClassVar[int] = 4096
    scan_keys: ClassVar[int] = 1000
    scan_page: ClassVar[int] = MIB
    """One page of a scan has at most so many keys, and so many bytes of them."""
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

    def check_size(self, request: int) -> None:
        """Raise InvalidRequest when a request of so many bytes holds too large a value, whatever is in it."""
        if request > self.value + _BESIDE_VALUE:
            raise InvalidRequest(
                "value", f"is over its limit of {self.value} bytes: the request has {request} bytes"
            )

    def check_content_type(self, text: str) -> None:
        """Raise InvalidRequest for an oversized content type."""
        if len(text) > self.content_type:
            raise InvalidRequest(
                "content_type", f"has {len(text)} characters, the limit is {self.content_type}"
            )


MAX_MESSAGE_BYTES = 256 * MIB
"""No frame or reply is larger: its receiver would break off the connection."""
MAX_REQUEST_BYTES = Limits.MAX_VALUE + _BESIDE_VALUE
"""What a server takes at once: the largest value, with its key and context. Frames of nodes that are larger
come in parts."""
MAX_REPLY_BYTES = MAX_MESSAGE_BYTES - 16 * MIB
"""The largest version that a client is sent. What is larger, no replica can hold: it can only be deleted."""

SESSION_SECONDS = 300.0
"""So long after its last use a client's session forgets a key: below the age at which a tombstone may be
reaped, since what was seen and then deleted by somebody else is known to nobody after that."""

FRAME_BYTES = 4 * MIB
"""Most bytes that one frame of a stream carries, unless a single message is larger."""
FRAME_ITEMS = 4096
"""Most messages, or replies to clients, in one frame that a node sends."""


@dataclass(frozen=True, slots=True)
class QuorumSettings:
    """Times in seconds and bounds of the coordinator and of hinted handoff. Raises ConfigError."""

    TABLE: ClassVar[str] = "quorum"

    default_timeout: Seconds = 5.0
    """For a request that comes without a time of its own."""
    max_timeout: Seconds = 60.0
    """The longest that a request may take; one that asks for more gets this."""
    read_patience: Seconds = 0.25
    """How long one replica may take before a read asks another, whatever the budget of hedges says."""
    hedge_share: Annotated[float, Bounds(0, 1)] = 0.05
    """Extra reads for each read: the budget of hedges; 0, with no burst either: none."""
    hedge_burst: Annotated[float, Bounds(0, 1e6)] = 10.0
    """Extra reads that may be saved up."""
    write_patience: Seconds = 2.0
    """How long one replica may take before a write leaves a hint for it."""
    max_clock_drift: SecondsOrNone = 3600.0
    """A time further ahead of this node's clock than this does not carry it along (kvstore.hlc)."""
    in_flight: Count = 20_000
    """Client requests that one node works on at once; more are refused as overloaded."""
    in_flight_bytes: Count = 64 * MIB
    """Bytes of keys' versions that one node's operations hold at once; beyond, requests are refused."""
    hint_interval: Seconds = 1.0
    """Pause after a target has failed to take hints; it doubles with every failure in a row."""
    hint_longest_interval: Seconds = 30.0
    """The longest that this pause becomes."""
    hint_window: Annotated[int, Bounds(1, 10_000)] = 64
    """Hints in flight to one target at a time."""
    hint_rate: Rate = 3_000.0
    """Hints a second that one node replays, to all targets together; fewer under load."""
    hint_byte_rate: Rate = 16.0 * MIB
    """Bytes a second of such hints."""
    hint_count: CountOrNone = 1_000_000
    """Hints kept for one target; 0: none, so that only anti-entropy repairs what a node has missed."""
    hint_bytes: CountOrNone = 1024 * MIB
    """Bytes of hints kept for one target."""
    hint_age: Seconds = 7 * 86_400.0
    """A hint goes when nothing was written to it for so long."""

    def __post_init__(self) -> None:
        check_bounds(self.TABLE, self)
        _in_order(self, "default_timeout", "max_timeout")
        _in_order(self, "hint_interval", "hint_longest_interval")


@dataclass(frozen=True, slots=True)
class AntiEntropySettings:
    """Times in seconds of anti-entropy, transfers and reaping (docs/anti-entropy.md). Raises ConfigError."""

    TABLE: ClassVar[str] = "anti-entropy"

    interval: SecondsOrNever = 10.0
    """Between two comparisons with the same peer; inf: only when an operator asks."""
    settle: SecondsOrNone = 1.0
    """After this a difference is looked at again, so that writes in flight do not count."""
    pause: SecondsOrNone = 0.005
    """Between two steps; it grows with the load."""
    longest_pause: SecondsOrNone = 1.0
    """The longest that this pause becomes."""
    timeout: Seconds = 5.0
    """For an answer of the peer."""
    answer_bytes: Annotated[int, Bounds(1, 8 * MIB)] = 256 * KIB
    """Bytes of versions in one answer of an exchange; the last one may go beyond."""
    transfer_byte_rate: Rate = 16.0 * MIB
    """Bytes a second that a node fetches of the partitions that it gets, of all of them together."""
    slice: Count = 256
    """Entries of a scan that are taken into the trees in one step."""
    rebuild: SecondsOrNever = 86_400.0
    """Trees are built anew after this; inf: never."""
    reap_interval: SecondsOrNever = 600.0
    """Between two passes that look for tombstones to reap; inf: they are kept."""
    reap_age: Seconds = 600.0
    """All members must confirm a tombstone twice, so far apart: more than twice a message's longest way."""

    def __post_init__(self) -> None:
        check_bounds(self.TABLE, self)
        _in_order(self, "pause", "longest_pause")


def _in_order(settings: QuorumSettings | AntiEntropySettings, low: str, high: str) -> None:
    least, most = getattr(settings, low), getattr(settings, high)
    if least > most:
        names = low.replace("_", "-"), high.replace("_", "-")
        raise ConfigError(f"{settings.TABLE}: {names[0]}={least} must not exceed {names[1]}={most}")
