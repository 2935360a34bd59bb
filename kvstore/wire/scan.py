"""A page of the keys of a bucket as protobuf, and back."""

from __future__ import annotations

from kvstore.protocol.scan import Scan, Scanned
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.codec import codec_of

_SCAN = codec_of(Scan, pb.ScanRequest.DESCRIPTOR)
_SCANNED = codec_of(Scanned, pb.ScanResponse.DESCRIPTOR)


def scan_from_wire(m: pb.ScanRequest) -> Scan:
    """What a client asks."""
    scan: Scan = _SCAN.read(m)
    return scan


def scan_to_wire(scan: Scan) -> pb.ScanRequest:
    """Inverse of `scan_from_wire`."""
    m = pb.ScanRequest()
    _SCAN.fill(m, scan)
    return m


def scanned_from_wire(m: pb.ScanResponse) -> Scanned:
    """A page; raises InvalidRequest for one that has too many keys."""
    scanned: Scanned = _SCANNED.read(m)
    return scanned


def scanned_to_wire(scanned: Scanned) -> pb.ScanResponse:
    """Inverse of `scanned_from_wire`."""
    m = pb.ScanResponse()
    _SCANNED.fill(m, scanned)
    return m
