"""Every request that a node understands can be made with both clients, with the options that it has."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from kvstore.client import asynchronous, synchronous
from kvstore.client.core.seen import Seen
from kvstore.client.requests import Requests, requests_for
from kvstore.config import QuorumMode
from kvstore.errors import Unavailable
from kvstore.protocol.client import CLIENT_REQUESTS, Get
from kvstore.versions import SessionToken

BY_THE_CLIENT = {"bucket", "epoch", "seen", "seen_empty"}
"""Fields that are no option of a call: of its bucket, of routing, and of sessions."""
OPTIONS: dict[str, Any] = {
    "key": b"k",
    "value": b"v",
    "context": b"seen",
    "content_type": "text/plain",
    "ttl": 7,
    "r": 2,
    "w": 3,
    "quorum": "sloppy",
    "timeout": 4.5,
    "explain": True,
}
"""Values that are no defaults."""


@pytest.mark.parametrize("struct", CLIENT_REQUESTS, ids=lambda struct: struct.__name__)
def test_a_request_is_a_method_of_both_clients_with_its_fields_as_options(struct: Any) -> None:
    name = struct.__name__.lower()
    options = {field.name for field in msgspec.structs.fields(struct)} - BY_THE_CLIENT
    made_by = inspect.signature(getattr(Requests, name)).parameters
    assert set(made_by) - {"self"} == options
    for client in (asynchronous, synchronous):
        offered = inspect.signature(getattr(client.Bucket, name)).parameters
        assert options <= set(offered), client.__name__


class Recorder:
    """Carries no request further: it is what was sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    now = 0.0

    async def execute(self, request: Any) -> None:
        self.sent.append(request)
        raise Unavailable(1, 0)


@pytest.mark.parametrize("struct", CLIENT_REQUESTS, ids=lambda struct: struct.__name__)
def test_each_option_of_a_call_is_sent(struct: Any) -> None:
    recorder: Any = Recorder()
    bucket = asynchronous.Bucket[bytes](recorder, requests_for("carts", None, None, None, 9.0, None), None)
    names = {field.name for field in msgspec.structs.fields(struct)} - BY_THE_CLIENT
    call = getattr(bucket, struct.__name__.lower())
    with suppress(Unavailable):
        asyncio.run(call(**{name: OPTIONS[name] for name in names}))
    (sent,) = recorder.sent
    assert isinstance(sent, struct)
    expected = {name: QuorumMode.SLOPPY if name == "quorum" else OPTIONS[name] for name in names}
    assert {name: getattr(sent, name) for name in names} == expected


class Known(Seen):
    """What a session has seen of every key."""

    def asking(self, request: Get, now: float) -> Get:
        return msgspec.structs.replace(request, seen=SessionToken(b"seen"))


@pytest.mark.parametrize(
    "struct", [struct for struct in CLIENT_REQUESTS if not struct.writes], ids=lambda struct: struct.__name__
)
def test_a_read_of_a_session_says_what_the_session_has_seen(struct: Any) -> None:
    recorder: Any = Recorder()
    requests = requests_for("carts", None, None, None, 9.0, None)
    bucket = asynchronous.Bucket[bytes](recorder, requests, None, Known())
    with suppress(Unavailable):
        asyncio.run(getattr(bucket, struct.__name__.lower())(b"k"))
    (sent,) = recorder.sent
    assert sent.seen == b"seen"


@pytest.mark.parametrize("kind", ["Client", "Bucket", "Session"])
def test_the_synchronous_client_has_all_that_the_other_has(kind: str) -> None:
    def public(module: Any) -> set[str]:
        return {name for name in dir(getattr(module, kind)) if not name.startswith("_")}

    assert public(synchronous) == public(asynchronous)
