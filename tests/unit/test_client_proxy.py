"""Which proxy is on the way to a node, and what becomes of a call for which gRPC does nothing at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kvstore.client import unary
from kvstore.client.proxy import proxy_for
from kvstore.errors import NoNodeAvailable
from tests.unit.client_node import run


@pytest.mark.parametrize(
    ("named", "address", "proxy"),
    [
        ("", "192.0.2.1:7001", None),
        ("http://proxy:3128", "192.0.2.1:7001", "proxy:3128"),
        ("http://proxy:3128", "n1.example:7001", "proxy:3128"),
        ("http://user:secret@proxy:3128", "[2001:db8::1]:7001", "proxy:3128"),
        ("proxy:3128", "192.0.2.1:7001", "proxy:3128"),
        ("user:secret@proxy:3128", "192.0.2.1:7001", "proxy:3128"),
        ("http://proxy:3128", "127.0.0.1:7001", None),
        ("http://proxy:3128", "127.8.9.1:7001", None),
        ("http://proxy:3128", "localhost:7001", None),
        ("http://proxy:3128", "[::1]:7001", None),
    ],
)
def test_the_proxy_of_an_address(
    monkeypatch: pytest.MonkeyPatch, named: str, address: str, proxy: str | None
) -> None:
    monkeypatch.setenv("http_proxy", "http://other:1")
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("grpc_proxy", named)
    assert proxy_for(address) == proxy


@pytest.mark.parametrize("name", ["no_proxy", "no_grpc_proxy"])
def test_exceptions_are_kept(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("grpc_proxy", "http://proxy:3128")
    monkeypatch.setenv(name, "n1.example,192.0.2.1")
    assert proxy_for("n1.example:7001") is proxy_for("192.0.2.1:7001") is None
    assert proxy_for("n2.example:7001") == "proxy:3128"


class Stuck:
    """A channel whose calls never end, not even in time."""

    def unary_unary(self, *_: object, **__: object) -> Any:
        return self

    async def __call__(self, *_: object, **__: object) -> object:
        return await asyncio.Event().wait()


def test_a_call_ends_where_grpc_does_not_keep_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unary, "_GRACE", 0.01)
    channel: Any = Stuck()
    with pytest.raises(NoNodeAvailable, match="h:1: gRPC is stuck in this process"):
        run(asyncio.wait_for(unary.fetch_state(channel, "h:1", 0.01), 5))
