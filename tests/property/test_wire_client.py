"""The client API's messages, errors and the ring: round trips, and nothing but typed errors for damage."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from kvstore.config import BucketSettings, Conflict, QuorumMode
from kvstore.errors import ConfigError, InvalidRequest, KVError
from kvstore.membership import transitions
from kvstore.protocol.client import ClientRequest, Found, Put, Reply
from kvstore.protocol.sizes import size_of
from kvstore.ring import ClusterState, initial_state, parse_members
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.client import call_from_wire, reply_from_wire, request_from_wire
from kvstore.wire.errors import error_from_status, error_from_wire, error_to_status, error_to_wire
from kvstore.wire.ring import state_from_wire, state_to_wire
from tests.client_messages import call_to_wire, request_to_wire, result_to_wire
from tests.property.wire_messages import comparable, damaged, errors, founds, replies, requests, u64


@given(requests)
def test_a_request_alone_and_in_a_session(request: ClientRequest) -> None:
    assert request_from_wire(request_to_wire(request)) == request
    call = pb.Call.FromString(call_to_wire(7, request).SerializeToString())
    assert call.id == 7
    assert call_from_wire(call) == request


@given(u64, replies)
def test_a_reply_in_a_session(number: int, reply: Reply) -> None:
    result = pb.Result.FromString(result_to_wire(number, reply).SerializeToString())
    assert result.id == number
    assert comparable(reply_from_wire(result)) == comparable(reply)


@given(requests)
def test_the_estimate_of_a_requests_size_is_no_less_than_its_content(request: ClientRequest) -> None:
    content = len(request.key) + len(getattr(request, "context", b""))
    assert size_of(request) >= content + (len(request.value) if isinstance(request, Put) else 0)


@given(founds)
def test_the_estimate_of_a_replys_size_is_no_less_than_its_content(found: Found) -> None:
    content = sum(len(sibling.value) for sibling in found.siblings) + len(found.context)
    assert size_of(found) >= content
    for sibling in found.siblings:
        assert type(sibling.value) is bytes


@given(errors)
def test_an_error_in_a_stream_and_as_a_status(error: KVError) -> None:
    assert comparable(error_from_wire(error_to_wire(error))) == comparable(error)
    assert comparable(error_from_status(error_to_status(error))) == comparable(error)


@given(st.binary(max_size=100) | damaged(requests.map(lambda r: call_to_wire(1, r).SerializeToString())))
def test_a_damaged_call(content: bytes) -> None:
    try:
        call = pb.Call.FromString(content)
        request = call_from_wire(call)
    except (DecodeError, InvalidRequest):
        return
    assert call_from_wire(call_to_wire(1, request)) == request


@given(st.binary(max_size=100) | damaged(replies.map(lambda r: result_to_wire(1, r).SerializeToString())))
def test_a_damaged_result(content: bytes) -> None:
    try:
        reply_from_wire(pb.Result.FromString(content))
    except (DecodeError, InvalidRequest):
        return


@st.composite
def states(draw: st.DrawFn) -> ClusterState:
    nodes = draw(st.integers(1, 5))
    text = ",".join(f"n{i}=10.0.0.{i}:7001/z{i % 2}/m{i}" for i in range(nodes))
    n = draw(st.integers(1, nodes))
    bucket = st.builds(
        BucketSettings,
        st.from_regex(r"[a-z0-9][a-z0-9._-]{0,10}", fullmatch=True),
        st.just(n),
        st.integers(1, n),
        st.integers(1, n),
        st.sampled_from(QuorumMode),
        st.sampled_from(Conflict),
        st.integers(0, 2**40),
    )
    buckets = draw(st.lists(bucket, max_size=3, unique_by=lambda b: b.name))
    partitions = 2 ** draw(st.integers(0, 6))
    state = initial_state(draw(st.sampled_from(["", "test"])), parse_members(text), partitions, n, buckets)
    lists = state.ring.replica_lists
    moving = draw(st.sets(st.integers(0, partitions - 1)))
    emptied = {p: nodes[:1] for p, nodes in enumerate(lists) if p in moving}
    state = transitions.begin(state, {p: lists[p][::-1] for p in moving}, emptied=emptied)
    advanced = draw(st.sets(st.sampled_from(sorted(moving)))) if moving else set()
    return transitions.advance(state, advanced) if advanced else state


def ring_bytes(state: ClusterState) -> bytes:
    return state_to_wire(state).SerializeToString()


@given(states())
def test_cluster_state(state: ClusterState) -> None:
    assert state_from_wire(pb.GetRingResponse.FromString(ring_bytes(state))) == state


@given(damaged(states().map(ring_bytes)))
def test_a_damaged_cluster_state(content: bytes) -> None:
    try:
        state = state_from_wire(pb.GetRingResponse.FromString(content))
    except (DecodeError, ConfigError):
        return
    state.ring.partition("bucket", b"key")


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: setattr(m.buckets[0], "quorum", "odd"),
        lambda m: setattr(m.buckets[0], "conflict", ""),
        lambda m: setattr(m.buckets[0], "r", 9),
        lambda m: setattr(m.members[0], "address", "nowhere"),
        lambda m: m.partitions[0].members.append(3),
        lambda m: m.partitions[0].ClearField("members"),
        lambda m: m.partitions.add(members=[0]),
        lambda m: m.ClearField("partitions"),
        lambda m: setattr(m.moves[0], "step", 0),
        lambda m: setattr(m.moves[0], "step", 7),
        lambda m: m.moves[0].old.append(3),
        lambda m: m.moves[0].emptied.append(0),
        lambda m: m.moves.add(partition=1),
        lambda m: m.since.append(1),
        lambda m: m.buckets_since.update(b=3),
        lambda m: setattr(m, "epoch", 2**63),
        lambda m: setattr(m, "replicas", 0),
    ],
)
def test_what_can_be_no_cluster_state(damage: Callable[[pb.GetRingResponse], None]) -> None:
    members = parse_members("n1=h:1,n2=h:2,n3=h:3")
    state = initial_state("", members, 4, 3, [BucketSettings("b")])
    nodes = state.ring.replica_lists[1]
    message = state_to_wire(transitions.begin(state, {1: nodes[::-1]}, emptied={1: nodes[:1]}))
    assert state_from_wire(message).moves
    damage(message)
    with pytest.raises(ConfigError):
        state_from_wire(message)


def test_an_unknown_quorum_mode_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="quorum: 77"):
        request_from_wire(pb.GetRequest(quorum=77))  # type: ignore[arg-type]
