"""The table of messages is complete: whoever adds a message or a field and forgets a place is told which."""

from __future__ import annotations

import inspect
from dataclasses import fields as dataclass_fields
from enum import Enum
from typing import Any, get_args

import msgspec
import pytest

from kvstore.config import Limits
from kvstore.errors import KVError
from kvstore.node.frame_check import NOT_CHECKED, FrameCheck
from kvstore.protocol import client as client_messages
from kvstore.protocol import gossip, paxos, peer, scan, spread
from kvstore.protocol.client import CLIENT_REQUESTS, Reply
from kvstore.protocol.fields import Kind, Number, fields_of, is_record
from kvstore.protocol.gossip import Ping, Update
from kvstore.protocol.row import ROWS, peer_message
from kvstore.protocol.scan import Scan, Scanned
from kvstore.protocol.spread import NewState
from kvstore.protocol.table import ANSWERS, PEER_TABLE, awaited, expired, is_bulk
from kvstore.quorum.counters import Counters
from kvstore.quorum.placement import Placements
from kvstore.ring import initial_state, parse_members
from kvstore.v1 import client_pb2, peer_pb2
from kvstore.wire.client import WIRE_REQUESTS
from kvstore.wire.codec import codec_of
from kvstore.wire.columns import Columns
from tests.wire_samples import sample

FRAME = peer_pb2.Frame.DESCRIPTOR
MESSAGES: list[Any] = [*PEER_TABLE, *CLIENT_REQUESTS, *get_args(Reply), Scan, Scanned]


def parts(record: Any) -> set[Any]:
    """A record and all that it is made of."""
    found = {record}
    for field in fields_of(record):
        for kind in field.types:
            if is_record(kind):
                found |= parts(kind)
    return found


RECORDS = set().union(*map(parts, MESSAGES))


def test_every_struct_that_is_declared_is_in_the_union_and_the_other_way_round() -> None:
    assert set(ROWS) == set(PEER_TABLE)


@pytest.mark.parametrize("module", [peer, gossip, paxos, spread, client_messages, scan])
def test_no_struct_lies_about_that_is_in_no_message(module: Any) -> None:
    """Not declared, not in the union, or in no field of a message: then nobody could send it."""
    defined = {
        thing
        for thing in vars(module).values()
        if inspect.isclass(thing) and thing.__module__ == module.__name__ and is_record(thing)
    }
    assert defined - RECORDS == set()


def test_every_list_of_a_frame_is_of_one_message() -> None:
    lists = [row.frame_field for row in PEER_TABLE.values()]
    lists += [row.columns for row in PEER_TABLE.values() if row.columns]
    assert sorted([*lists, "sent_ms"]) == sorted(FRAME.fields_by_name)


@pytest.mark.parametrize("struct", PEER_TABLE, ids=lambda struct: struct.__name__)
def test_a_message_has_the_name_of_its_struct(struct: type) -> None:
    wire = FRAME.fields_by_name[PEER_TABLE[struct].frame_field]
    if wire.message_type is not None:
        assert wire.message_type.name == struct.__name__


@pytest.mark.parametrize("struct", PEER_TABLE, ids=lambda struct: struct.__name__)
def test_what_has_a_number_and_an_epoch_is_a_question(struct: type) -> None:
    """Left out, whoever asks would wait for its whole patience when the message is dropped."""
    names = {field.name for field in fields_of(struct)}
    message = sample(struct)
    assert PEER_TABLE[struct].question == ({"number", "epoch"} <= names)
    assert awaited(message) == (message.number if {"number", "epoch"} <= names else None)


@pytest.mark.parametrize("struct", PEER_TABLE, ids=lambda struct: struct.__name__)
def test_what_tells_how_long_its_asker_waits_is_not_carried_out_later(struct: type) -> None:
    times = [field.name for field in fields_of(struct) if field.kind is Kind.TIME_LEFT]
    if not times and struct is not peer.Forward:
        assert not expired(sample(struct), 1e9)
        return
    message = sample(struct)
    (left,) = [getattr(message, name) / 1000 for name in times] or [message.request.timeout]
    assert expired(message, left * 1.01)
    assert not expired(message, left * 0.99)


@pytest.mark.parametrize("struct", PEER_TABLE, ids=lambda struct: struct.__name__)
def test_what_is_large_or_can_wait_goes_by_the_stream_for_bulk(struct: type) -> None:
    message = sample(struct)
    assert is_bulk(message, 65_537)
    assert is_bulk(message, 65_536) == (hasattr(message, "background") or struct is NewState)
    if hasattr(message, "background"):
        assert not is_bulk(msgspec.structs.replace(message, background=False), 65_536)


@pytest.mark.parametrize("record", sorted(RECORDS, key=repr), ids=lambda record: record.__name__)
def test_every_field_says_what_it_holds(record: type) -> None:
    """By that it is checked; only flags, enumerations, errors and records say so by their types."""
    for field in fields_of(record):
        told = [kind is bool or kind is KVError or is_record(kind) for kind in field.types]
        told += [isinstance(kind, type) and issubclass(kind, Enum) for kind in field.types]
        assert (field.kind is not None) != any(told), field.name


def test_every_kind_of_field_is_checked_or_there_is_a_reason_not_to() -> None:
    state = initial_state("", parse_members("n1=h:1,n2=h:2,n3=h:3"), 4, 3, [])
    placements = Placements("n1", state, lambda _: True)
    checked = set(FrameCheck(placements, Limits(), lambda _: True).by_kind)
    assert checked & set(NOT_CHECKED) == set()
    assert checked | set(NOT_CHECKED) == set(Kind)


def test_every_kind_of_field_is_in_some_message() -> None:
    assert {field.kind for record in RECORDS for field in fields_of(record)} >= set(Kind)


@pytest.mark.parametrize("struct", CLIENT_REQUESTS, ids=lambda struct: struct.__name__)
def test_every_request_of_clients_is_a_method_is_in_sessions_and_is_counted(struct: Any) -> None:
    message = WIRE_REQUESTS[struct].DESCRIPTOR
    method = client_pb2.DESCRIPTOR.services_by_name["KV"].methods_by_name[struct.__name__]
    assert method.input_type is message
    call = client_pb2.Call.DESCRIPTOR.fields_by_name[struct.__name__.lower()]
    assert call.message_type is message
    reply = client_pb2.Result.DESCRIPTOR.fields_by_name[struct.reply.__name__.lower()]
    assert reply.message_type is method.output_type
    assert struct.counter in {field.name for field in dataclass_fields(Counters)}


def test_requests_are_counted_apart() -> None:
    assert len({struct.counter for struct in CLIENT_REQUESTS}) == len(CLIENT_REQUESTS)


# leaving out one side is found at the first import


class MorePing(msgspec.Struct, frozen=True):
    sequence: Number
    target: str
    updates: tuple[Update, ...]
    more: Number = 0


class LessPing(msgspec.Struct, frozen=True):
    sequence: Number
    updates: tuple[Update, ...]


class OnePing(msgspec.Struct, frozen=True):
    sequence: Number
    target: str
    updates: Update


class FullPing(msgspec.Struct, frozen=True):
    sequence: Number
    updates: tuple[Update, ...]
    target: str = "somebody"


@pytest.mark.parametrize(
    ("struct", "reason"),
    [
        (MorePing, "has no field for MorePing.more"),
        (LessPing, r"has \['target'\], LessPing has not"),
        (OnePing, "one is a list"),
        (FullPing, "a field that is not sent is read as 0"),
    ],
)
def test_a_struct_and_a_message_whose_fields_differ(struct: type, reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        codec_of(struct, peer_pb2.Ping.DESCRIPTOR)


class Lacking(Enum):
    ALIVE = 1
    GONE = 2


class OddUpdate(msgspec.Struct, frozen=True):
    node: str
    status: Lacking
    incarnation: Number


def test_an_enumeration_whose_members_differ() -> None:
    with pytest.raises((TypeError, KeyError)):
        codec_of(OddUpdate, peer_pb2.MemberUpdate.DESCRIPTOR)


class OddWrite(msgspec.Struct, frozen=True):
    number: Number
    epoch: Number
    key: bytes
    version: bytes
    more: Number


@pytest.mark.parametrize(
    ("struct", "reason"),
    [(OddWrite, r"cannot leave out \['more'\]"), (Ping, "has a column that is no field")],
)
def test_a_struct_that_does_not_fit_its_columns(struct: type, reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        Columns(struct, peer_pb2.PlainWrites.DESCRIPTOR)


class OddFound(msgspec.Struct, frozen=True):
    siblings: tuple[OddValue, ...]
    context: bytes


class OddValue(msgspec.Struct, frozen=True):
    value: bytes
    more: Number
    time: Number = 0


@pytest.mark.parametrize(
    ("alone", "reason"),
    [
        ("siblings", r"cannot leave out \['more'\]"),
        ("context", "OddFound.context is no tuple of records"),
        ("", "has a column that is no field"),
    ],
)
def test_a_record_that_does_not_fit_its_columns(alone: str, reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        Columns(OddFound, client_pb2.PlainFound.DESCRIPTOR, others=("ids",), alone=alone)


def test_a_message_is_declared_once() -> None:
    with pytest.raises(TypeError, match="Ping is declared twice"):
        peer_message("pings")(Ping)
    with pytest.raises(TypeError, match="pings is the list of Ping"):
        peer_message("pings")(OddUpdate)


def test_every_question_has_an_answer_and_every_answer_a_question() -> None:
    questions = {struct for struct, row in PEER_TABLE.items() if row.question}
    assert set(ANSWERS.values()) == questions
    assert not set(ANSWERS) & questions
    for answer in ANSWERS:
        names = {field.name for field in fields_of(answer)}
        assert names & {"number", "numbers"}, f"{answer.__name__} does not say which question it answers"
