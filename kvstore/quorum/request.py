"""A client's request as the coordinator's operations see it."""

from __future__ import annotations

from typing import Protocol

import msgspec

from kvstore.config import BucketSettings
from kvstore.quorum.messages import ClientRequest
from kvstore.quorum.placement import Placement


class Moment(Protocol):
    """The time of an input: `mono` in seconds, `wall` in milliseconds since 1970."""

    @property
    def mono(self) -> float:
        """Seconds, only ever forwards."""

    @property
    def wall(self) -> int:
        """Milliseconds since 1970."""


class Request(msgspec.Struct, frozen=True):
    """A client's request with all that was derived from it once: key, replicas, quorum, deadline."""

    call: ClientRequest
    bucket: BucketSettings
    token: int
    key: bytes
    partition: int
    n: int
    required: int
    sloppy: bool
    placement: Placement
    deadline: float
    now: Moment
    client: int
