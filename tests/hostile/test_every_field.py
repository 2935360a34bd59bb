"""Every field of every message of clients, peers and operators at its ends, one at a time: real servers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message

from kvstore.node.frame_check import NOT_CHECKED
from kvstore.protocol.fields import fields_of, is_record
from kvstore.protocol.peer import ForwardReply
from kvstore.protocol.table import PEER_TABLE
from kvstore.v1 import admin_pb2, client_pb2, peer_pb2
from tests.conftest import Exercised
from tests.hostile.attacks import attacks
from tests.hostile.live_nodes import Attack, LiveNodes, assert_no_traceback, launch
from tests.hostile.valid_messages import frames, session_requests, unary_requests
from tests.unit.server_nodes import run

EVERY_NODE = bool(os.environ.get("KVSTORE_HOSTILE"))
"""Whether each attack goes to every node, and not to one after the other in turn."""


def attacks_of_peers(nodes: LiveNodes) -> Iterator[tuple[str, Attack]]:
    for kind, frame in frames().items():
        for i, (name, data) in enumerate(attacks(frame)):
            for node in range(3) if EVERY_NODE else (i % 3,):
                yield f"{kind}: {name}", partial(nodes.peer, node, data)


def attacks_of_sessions(nodes: LiveNodes) -> Iterator[tuple[str, Attack]]:
    for number, request in enumerate(session_requests()):
        for i, (name, data) in enumerate(attacks(request)):
            yield f"session {number}: {name}", partial(nodes.session, i % 3, data)


def attacks_of_calls(nodes: LiveNodes) -> Iterator[tuple[str, Attack]]:
    for number, (method, request) in enumerate(unary_requests()):
        for i, (name, data) in enumerate(attacks(request)):
            yield f"{method} {number}: {name}", partial(nodes.unary, i % 3, method, data)


GROUPS = {"peers": attacks_of_peers, "sessions": attacks_of_sessions, "calls": attacks_of_calls}


@pytest.mark.parametrize("group", GROUPS)
def test_every_field_at_its_ends_hurts_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, exercised: Exercised, group: str
) -> None:
    nodes = LiveNodes(tmp_path)

    async def scenario() -> None:
        async with nodes.serving():
            await nodes.plant_canaries()
            if group == "peers":
                right = [
                    (f"{kind}, unchanged", partial(nodes.peer, 0, frame.SerializeToString()))
                    for kind, frame in frames().items()
                ]
                assert set((await launch(right)).values()) == {"OK"}, (
                    "else all attacks were refused for the same reason"
                )
            found = await launch(list(GROUPS[group](nodes)))
            for code, count in Counter(found.values()).items():
                exercised(f"attacks on fields by {group}, {code}", count)
            if group == "peers":
                assert checked_fields() - refused_fields(found) == set(), "wrong, and taken"
            await nodes.check()
            await nodes.repair()
        first, second, third = nodes.on_disk()
        assert first == second == third, "as the disks say, not the trees"
        async with nodes.serving():
            await nodes.check()

    run(scenario())
    assert_no_traceback(caplog)


# of the attacks themselves


def checked_fields() -> set[tuple[str, str]]:
    """The fields of peers' messages that have checks, with the names of these messages.

    Without a final s: a column of them is named for all its items.
    """

    def within(record: Any) -> Iterator[str]:
        for field in fields_of(record):
            if field.kind is not None and field.kind not in NOT_CHECKED:
                yield field.name
            for kind in field.types:
                if is_record(kind):
                    yield from within(kind)

    # what is in a request, or a reply, its client learns
    peers = [struct for struct in PEER_TABLE if struct is not ForwardReply]
    return {(struct.__name__, name.removesuffix("s")) for struct in peers for name in within(struct)}


def refused_fields(found: dict[str, str]) -> set[tuple[str, str]]:
    """Likewise those of which a value was refused; not for its encoding, nor for the length of a column."""
    well_formed = set()
    for kind, frame in frames().items():
        for name, data in attacks(frame):
            with suppress(DecodeError):
                peer_pb2.Frame.FromString(data)
                if (
                    " = " in name
                    and " = 3 x" not in name
                    and found.get(f"{kind}: {name}") == "INVALID_ARGUMENT"
                ):
                    well_formed.add((kind.split()[0], name.split(" = ")[0].split(".")[-1].removesuffix("s")))
    return well_formed


def fields_with_values(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        yield field.full_name
        if field.type == field.TYPE_MESSAGE:
            for item in value if field.is_repeated else [value]:
                yield from fields_with_values(item)


def fields_within(descriptor: Any, seen: set[str]) -> Iterator[str]:
    if descriptor.full_name in seen:
        return
    seen.add(descriptor.full_name)
    for field in descriptor.fields:
        yield field.full_name
        if field.message_type:
            yield from fields_within(field.message_type, seen)


def test_no_field_of_any_message_is_left_out() -> None:
    """A new field needs a kind with a valid value, and is attacked then."""
    messages = [*frames().values(), *session_requests(), *(request for _, request in unary_requests())]
    attacked = {name for message in messages for name in fields_with_values(message)}
    roots: list[Any] = [peer_pb2.Frame.DESCRIPTOR, client_pb2.SessionRequest.DESCRIPTOR]
    for file in (client_pb2, admin_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            roots += [method.input_type for method in service.methods]
    seen: set[str] = set()
    there = {name for root in roots for name in fields_within(root, seen)}
    assert there - attacked == set()
