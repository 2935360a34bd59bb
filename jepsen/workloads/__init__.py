"""Workloads: what clients do, and what must hold of it."""

from __future__ import annotations

from jepsen.workloads.base import Workload
from jepsen.workloads.registers import Delete, Lww, Register, Session
from jepsen.workloads.sets import Cart, Counter, Set

WORKLOADS: dict[str, type[Workload]] = {
    workload.name: workload for workload in (Set, Register, Cart, Session, Delete, Lww, Counter)
}


REPLICAS = 3
"""n of every bucket."""


def bucket_settings(workload: type[Workload], quorum: str, r: int, w: int) -> str:
    """The settings of a workload's bucket, as for `kvnode --bucket`."""
    settings = ",".join(filter(None, [f"n={REPLICAS},r={r},w={w},quorum={quorum}", workload.settings]))
    return f"{workload.name}:{settings}"


def workload_of(key: str) -> str:
    """The workload that a key of a history belongs to."""
    return key.partition("/")[0]
