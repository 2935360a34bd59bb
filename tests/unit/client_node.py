"""Small honest nodes for the client's tests: the Session protocol over one memory, with faults on order."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from typing import Any

from google.rpc import code_pb2
from google.rpc.status_pb2 import Status

from kvstore.client.background import shared_background
from kvstore.config import BucketSettings
from kvstore.contexts import Keyring, decode_context, encode_context
from kvstore.errors import InvalidRequest, KVError, UnverifiedContext
from kvstore.frames.incoming import Pieces, Rest, StreamEnded, StreamLost
from kvstore.protocol.client import ClientRequest, Delete, Failed, Found, Get, Put, Reply, Stored, Value
from kvstore.protocol.scan import Scan, Scanned, ScannedKey
from kvstore.quorum.ttl import expiry
from kvstore.ring import ClusterState, data_key, initial_state, parse_members, token
from kvstore.server import stream_calls
from kvstore.server.calls import Answer, Messages, Service
from kvstore.server.listener import Listener
from kvstore.v1 import client_pb2 as pb
from kvstore.versions import (
    EMPTY,
    NO_CONTEXT,
    Dot,
    DottedContext,
    InternalKey,
    Sibling,
    SignedContext,
    UserKey,
    Version,
    write,
)
from kvstore.wire.client import call_from_wire
from kvstore.wire.ring import state_to_wire
from kvstore.wire.scan import scan_from_wire, scanned_to_wire
from kvstore.wire.session import decode_calls
from tests.client_messages import result_to_wire

BROKEN = StreamEnded(Status(code=code_pb2.UNAVAILABLE, message="broken by the test"))
KEYRING = Keyring([b"k" * 16])
run = shared_background().run
"""Clients and nodes share one loop."""


class Store:
    """What all nodes of a cluster hold, and each write that was applied."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, bytes], Version] = {}
        self.applied: list[tuple[bytes, bytes | None]] = []
        self.calls: list[ClientRequest] = []
        self.pages_left = math.inf
        self._counter = count(1)

    def perform(self, call: ClientRequest) -> Reply:
        place = (call.bucket, call.key)
        internal = data_key(token(call.bucket, call.key), call.bucket, call.key)
        version = self.versions.get(place, EMPTY)
        match call:
            case Get():
                values = tuple(
                    Value(s.value or b"", s.content_type, s.time, s.expiry) for s in version.visible(0)
                )
                context = (
                    encode_context(version.context, internal, KEYRING) if version.context else NO_CONTEXT
                )
                return Found(values, context)
            case Put():
                value: bytes | None = call.value
                content_type = call.content_type
                ends = expiry(call.ttl, int(time.time() * 1000))
            case Delete():
                value, content_type, ends = None, "", 0
        seen = decode_context(call.context, internal, KEYRING)
        if isinstance(call, Delete) and not call.context:
            seen = DottedContext(version.context)
        sibling = Sibling(Dot("a", next(self._counter)), value, content_type=content_type, expiry=ends)
        version = self.versions[place] = write(version, seen.context, sibling, seen.dots)
        self.applied.append((call.key, value))
        alone = len(version.siblings) == 1
        return Stored(
            encode_context(version.context, internal, KEYRING)
            if alone
            else encode_context(seen.context, internal, KEYRING, (sibling.dot,)),
            len(version.visible(0)),
        )


def _context(version: Version, internal: InternalKey) -> SignedContext:
    return encode_context(version.context, internal, KEYRING) if version.context else NO_CONTEXT


class FakeNode:
    """One node. Its faults are plain attributes, set by the tests."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.state: ClusterState | None = None
        self.port = 0
        self.refusals: deque[KVError] = deque()
        self.silent = False
        self.backwards = False
        self.large: set[bytes] = set()
        self.knows_until = True
        self.scan_fails = False
        self.scan_refusals: deque[KVError] = deque()
        self.stands_still = False
        self.scans: list[Scan] = []
        self.wrong_kind = False
        self.garbled = False
        self.break_before = False
        self.break_after = False
        self.frames: list[int] = []
        self.frame_bytes: list[int] = []
        self.calls: list[ClientRequest] = []
        self._listener: Listener | None = None

    async def start(self) -> None:
        unary = {
            "GetRing": _answer(pb.GetRingRequest, self._get_ring),
            "Scan": _answer(pb.ScanRequest, self._scan),
        }
        service = Service("kvstore.v1.KV", unary, {"Session": self._session})
        self._listener = Listener(stream_calls.handlers([service]))
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]
        await self._listener.start(self._listening, grpc_port=1)

    async def stop(self) -> None:
        if self._listener is not None:
            # asyncio leaves open what it accepts in the turn in which its server is closed
            asyncio.get_running_loop().remove_reader(self._listening)
            for _ in range(3):
                await asyncio.sleep(0)
            await self._listener.stop(0.01)
            self._listener.close()
            self._listener = None

    async def _get_ring(self, _request: pb.GetRingRequest) -> bytes:
        return self._ring()

    def _ring(self) -> bytes:
        assert self.state is not None
        return b"\xff\xff" if self.garbled else state_to_wire(self.state).SerializeToString()

    async def _scan(self, request: pb.ScanRequest) -> bytes:
        """Pages of two keys."""
        if not self.store.pages_left:
            self.frames.append(1)
            await asyncio.sleep(3600)
        self.store.pages_left -= 1
        if self.scan_refusals:
            raise self.scan_refusals.popleft()
        if self.scan_fails:
            raise StreamLost("broken by the test")
        scan = scan_from_wire(request)
        self.scans.append(scan)
        held = sorted(
            (data_key(token(scan.bucket, UserKey(key)), scan.bucket, UserKey(key)), key)
            for (bucket, key), version in self.store.versions.items()
            if bucket == scan.bucket and version.visible(0) and key.startswith(scan.prefix)
        )
        until = scan.until if self.knows_until and scan.until else b"e"
        left = [(internal, key) for internal, key in held if scan.cursor <= internal < until]
        page = [self._scanned(scan, key) for _, key in left[:2]]
        after = left[2][0] if len(left) > 2 else b""
        next_page = scan.cursor if self.stands_still else after
        return scanned_to_wire(Scanned(tuple(page), next_page)).SerializeToString()

    def _scanned(self, scan: Scan, key: bytes) -> ScannedKey:
        if not scan.values:
            return ScannedKey(UserKey(key))
        if key in self.large:
            return ScannedKey(UserKey(key), large=True)
        found = self.store.perform(Get(scan.bucket, UserKey(key)))
        assert isinstance(found, Found)
        return ScannedKey(UserKey(key), found.siblings)

    async def _session(self, messages: Messages, routed: bool) -> None:
        assert routed
        await messages.write(self._ring())

        def take(pieces: Pieces) -> Rest:
            return partial(self._take, messages, b"".join(pieces))

        await messages.each(take)

    async def _take(self, messages: Messages, data: bytes) -> None:
        _, bodies, plain_puts = decode_calls(data)
        calls = [*((body.id, call_from_wire(body)) for body in bodies), *plain_puts]
        self.frames.append(len(calls))
        self.frame_bytes.append(len(data))
        if self.break_before:
            raise BROKEN
        if self.silent:
            return
        results = [result_to_wire(number, self._answer(request)) for number, request in calls]
        if self.break_after:
            raise BROKEN
        if self.backwards:
            results.reverse()
        data = pb.SessionResponse(results=results).SerializeToString()
        await messages.write(b"\xff\xff" if self.garbled else data)

    def _answer(self, request: ClientRequest) -> Reply:
        self.calls.append(request)
        self.store.calls.append(request)
        if self.wrong_kind:
            return Stored(NO_CONTEXT, 1) if isinstance(request, Get) else Found((), NO_CONTEXT)
        if self.refusals:
            return Failed(self.refusals.popleft())
        try:
            return self.store.perform(request)
        except (InvalidRequest, UnverifiedContext) as error:
            return Failed(error)


def _answer(request: Any, method: Callable[[Any], Awaitable[bytes]]) -> Answer:
    async def answer(data: bytes, _call: object) -> bytes:
        return await method(request.FromString(data))

    return answer


class FakeCluster:
    """Three nodes that hold the same."""

    def __init__(self) -> None:
        self.store = Store()
        self.nodes = [FakeNode(self.store) for _ in range(3)]

    async def start(self) -> None:
        for node in self.nodes:
            await node.start()
        text = ",".join(f"n{i}=127.0.0.1:{node.port}" for i, node in enumerate(self.nodes))
        state = initial_state(
            "test", parse_members(text), partitions=16, buckets=[BucketSettings("single", r=1, w=1)]
        )
        for node in self.nodes:
            node.state = state

    async def stop(self) -> None:
        for node in self.nodes:
            await node.stop()

    @property
    def endpoints(self) -> str:
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def first(self, key: bytes, bucket: str = "carts") -> FakeNode:
        """The node that the client prefers for a key."""
        state = self.nodes[0].state
        assert state is not None
        return self.nodes[int(state.ring.replica_lists[state.ring.partition(bucket, key)][0][1:])]
