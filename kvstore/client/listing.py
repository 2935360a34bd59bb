"""Asking one node for a page of a scan."""

from __future__ import annotations

from collections.abc import Mapping

from kvstore.client.connection import Connection
from kvstore.client.core.calls import Calls
from kvstore.errors import NoNodeAvailable
from kvstore.protocol.scan import Scan, Scanned
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.scan import scan_to_wire, scanned_from_wire


async def page_at(connections: Mapping[str, Connection], calls: Calls, scan: Scan) -> Scanned:
    """The page that it makes, within the timeout of the scan; raises what it says, NoNodeAvailable.

    `connections` are those of now by address: it may be no member any more, or the client be closed.
    """
    connection = connections.get(calls.address)
    if connection is None:
        raise NoNodeAvailable({calls.address: calls.problem})
    page = await connection.ask(
        "kvstore.v1.KV/Scan", scan_to_wire(scan), pb.ScanResponse.FromString, scan.timeout
    )
    return scanned_from_wire(page)
