"""What operators call."""

from __future__ import annotations

import os
import time
from importlib.metadata import version

import grpc

from kvstore.server.client_service import ClientService
from kvstore.server.driver import Driver
from kvstore.server.links import Links
from kvstore.v1 import admin_pb2 as pb
from kvstore.wire.status import repair_to_wire, status_to_wire_response

SERVICE = pb.DESCRIPTOR.services_by_name["Admin"].full_name


class AdminService:
    """The Admin service of one node."""

    def __init__(self, driver: Driver, links: Links, clients: ClientService) -> None:
        self._driver = driver
        self._links = links
        self._clients = clients
        self._started = time.monotonic()
        self._version = version("kvstore")

    def handler(self) -> grpc.GenericRpcHandler:
        """The handlers of all methods."""
        get_status = grpc.unary_unary_rpc_method_handler(
            self.get_status,
            request_deserializer=pb.GetStatusRequest.FromString,
            response_serializer=pb.GetStatusResponse.SerializeToString,
        )
        repair = grpc.unary_unary_rpc_method_handler(
            self.repair,
            request_deserializer=pb.RepairRequest.FromString,
            response_serializer=pb.RepairResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"GetStatus": get_status, "Repair": repair})

    async def repair(self, request: pb.RepairRequest, context: object) -> pb.RepairResponse:
        """See admin.proto."""
        if request.start:
            self._driver.node.repair_now(self._driver.now())
        return repair_to_wire(self._driver.node.status().anti_entropy)

    async def get_status(self, request: pb.GetStatusRequest, context: object) -> pb.GetStatusResponse:
        """See admin.proto."""
        node = self._driver.node
        response = status_to_wire_response(node.status(), node.state)
        for member in response.members:
            member.connected = member.node == response.node or self._links.connected(member.node)
        response.version = self._version
        response.pid = os.getpid()
        response.uptime_s = time.monotonic() - self._started
        counters = response.counters
        counters.frames_sent = self._links.frames
        counters.messages_sent = self._links.messages
        counters.messages_dropped = self._links.dropped
        counters.queued_bytes = self._links.queued_bytes
        counters.most_queued_bytes = self._links.most_queued_bytes
        counters.most_reply_bytes = self._clients.most_reply_bytes
        counters.frames_received = self._driver.frames_received
        counters.messages_received = self._driver.messages_received
        counters.session_frames_received = self._clients.session_frames
        counters.session_calls_received = self._clients.session_calls
        return response
