"""A client that is given one name for several nodes, and nodes whose names get other addresses."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

import kvstore
from kvstore import aio
from kvstore.local.ports import free_ports
from kvstore.ring import initial_state, parse_members
from kvstore.server.server import ServerSettings
from tests.resolver import Resolver
from tests.unit.server_nodes import run, serving, settings


def at(node: ServerSettings, host: str) -> ServerSettings:
    return replace(node, host=host)


def test_one_name_is_enough_for_all_nodes_and_is_resolved_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its first address a process takes connections and answers none, at the second is nobody."""
    resolver = Resolver(monkeypatch)
    (port,) = free_ports(1)
    state = initial_state("c", parse_members(f"n1=n1.test:{port},n2=n2.test:{port}"), 8, 2)
    first, second = (settings(node, port, tmp_path, state) for node in ("n1", "n2"))
    resolver.names["all.test"] = [f"127.0.0.{each}" for each in (5, 6, 3, 2)]
    resolver.names |= {"n1.test": ["127.0.0.2"], "n2.test": ["127.0.0.3"]}

    async def scenario() -> None:
        with socket.create_server(("127.0.0.5", port)):
            async with (
                serving(at(first, "127.0.0.2")),
                await aio.connect(f"all.test:{port}") as db,
            ):
                bucket = db.bucket("b", w=1, r=1, quorum="sloppy")
                await bucket.put("k", b"v")
                async with serving(at(second, "127.0.0.3")):
                    await bucket.put("k2", b"v", w=2, quorum="strict")
                resolver.names["n2.test"] = ["127.0.0.6", "::1"]
                async with serving(at(second, "::1")):
                    await bucket.put("k3", b"v", w=2, quorum="strict")
                    assert set(await db.status()) == {"n1", "n2"}

    run(scenario())


def test_a_name_that_is_not_resolved_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    Resolver(monkeypatch).names["db.test"] = []
    with pytest.raises(kvstore.NoNodeAvailable) as none:
        kvstore.connect("db.test:7001")
    assert "db.test:7001: Name or service not known" in str(none.value)
    assert "\n" not in str(none.value)
