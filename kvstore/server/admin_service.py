"""What operators call."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from typing import Any

from google.protobuf.message import Message

from kvstore.node.status import NodeStatus
from kvstore.server.calls import Answer, Call, Service
from kvstore.server.client_service import ClientService
from kvstore.server.driver import Driver
from kvstore.server.links import Links
from kvstore.v1 import admin_pb2 as pb
from kvstore.wire.admin import METHODS, AdminMethod, Operated

SERVICE = pb.DESCRIPTOR.services_by_name["Admin"].full_name


@cache
def version_of_kvstore() -> str:
    """The version that is installed: all that is written of the package is read to find it."""
    return version("kvstore")


class AdminService:
    """The Admin service of one node."""

    def __init__(self, driver: Driver, links: Links, clients: ClientService) -> None:
        self._driver = driver
        self._links = links
        self._clients = clients
        self._started = time.monotonic()
        self._version = version_of_kvstore()

    def service(self) -> Service:
        """All methods."""
        return Service(SERVICE, {method.name: self._answer(method) for method in METHODS}, {})

    def _answer(self, method: AdminMethod[Any]) -> Answer:
        async def handle(request: Message, _call: Call) -> Message:
            return method.perform(Operated(self._driver.node, self._driver.now(), self._status), request)

        return self._clients.unary(handle, method.request)

    def _status(self) -> NodeStatus:
        """What the node says, and what only its server knows."""
        node = self._driver.status()
        links, clients, driver = self._links, self._clients, self._driver
        return replace(
            node,
            members=tuple(
                replace(member, connected=member.node == node.node or links.connected(member.node))
                for member in node.members
            ),
            counters=replace(
                node.counters,
                frames_sent=links.frames,
                messages_sent=links.messages,
                messages_dropped=links.dropped,
                frames_received=driver.frames_received,
                messages_received=driver.messages_received,
                session_frames_received=clients.session_frames,
                session_calls_received=clients.session_calls,
            ),
            settings=driver.configuration.texts(driver.node.state),
            version=self._version,
            pid=os.getpid(),
            uptime=time.monotonic() - self._started,
            queued_bytes=links.queued_bytes,
            most_queued_bytes=links.most_queued_bytes,
            most_reply_bytes=clients.most_reply_bytes,
        )
