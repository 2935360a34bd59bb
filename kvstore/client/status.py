"""What nodes say of themselves, as `Client.status` and `repair` return it (admin.proto has each field)."""

from __future__ import annotations

from kvstore.v1.admin_pb2 import GetStatusResponse, MemberStatus, RepairResponse
from kvstore.v1.peer_pb2 import STATUS_ALIVE, Status

__all__ = [
    "GetStatusResponse",
    "MemberStatus",
    "RepairResponse",
    "engine_figures",
    "is_alive",
    "read_figures",
    "status_name",
]


def is_alive(member: MemberStatus) -> bool:
    """Whether the node that was asked thinks this member alive."""
    return member.status == STATUS_ALIVE


def status_name(member: MemberStatus) -> str:
    """`alive`, `suspect` or `dead`."""
    return Status.Name(member.status).removeprefix("STATUS_").lower()


def engine_figures(status: GetStatusResponse) -> dict[str, int | float]:
    """What a node says of its storage engine, by the names in admin.proto."""
    engine = status.engine
    return {field.name: getattr(engine, field.name) for field in engine.DESCRIPTOR.fields}


_READ_FIGURES = (
    "gets",
    "read_repairs",
    "hedges",
    "hedges_won",
    "hedges_refused",
    "read_trials",
    "wide_reads",
)


def read_figures(status: GetStatusResponse) -> dict[str, int]:
    """What a node says of the reads that it has coordinated, by the names in admin.proto."""
    return {name: getattr(status.counters, name) for name in _READ_FIGURES}
