"""What a service needs of whatever has brought it a call: gRPC (grpc_calls), or a stream (stream_calls)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol, TypeAlias

from kvstore.frames.incoming import Take


class Call(Protocol):
    """A call with one request and one answer."""

    @property
    def peer(self) -> str:
        """The address at the other end of its connection, as gRPC writes it: `ipv4:127.0.0.1:7001`."""

    @property
    def deadline(self) -> float:
        """When its time is over, by the loop's clock."""

    def when_over(self, act: Callable[[], object]) -> None:
        """Call `act` when the client has the answer, or has gone."""


class Messages(Protocol):
    """Both directions of a session."""

    peer: str
    """See Call."""

    async def each(self, take: Take) -> None:
        """Give each message of the client to `take`, until it sends no more; raises what that raises."""

    @property
    def writable(self) -> bool:
        """Whether a message can be sent without waiting."""

    def write_now(self, message: bytes) -> None:
        """Send a message while they are writable."""

    async def write(self, message: bytes) -> None:
        """Send a message; returns when the next one may follow."""


Answer: TypeAlias = Callable[[bytes, Call], Awaitable[bytes]]
"""Carries out one request, and gives its answer; raises KVError."""


Session: TypeAlias = Callable[[Messages, bool], Awaitable[None]]
"""Serves a session, which begins with the cluster state if its client is to be routed; raises KVError."""


class Service(NamedTuple):
    """The methods of one service of the API, whatever brings their calls."""

    name: str
    unary: Mapping[str, Answer]
    sessions: Mapping[str, Session]
