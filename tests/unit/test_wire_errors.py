"""How each error looks to a client in another language: DESIGN section 9."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from kvstore.errors import (
    ConfigError,
    Corruption,
    InternalError,
    InvalidRequest,
    KVError,
    Overloaded,
    ReadTimeout,
    StaleRead,
    StaleRing,
    StorageFailed,
    StorageFull,
    TooManySiblings,
    Unavailable,
    WriteTimeout,
)
from kvstore.v1.client_pb2 import Error
from kvstore.wire.errors import error_from_status, error_to_status

CASES = [
    (InvalidRequest("key", "has 0 bytes"), code_pb2.INVALID_ARGUMENT, {"field": "key"}),
    (Unavailable(2, 1), code_pb2.UNAVAILABLE, {"required": "2", "received": "1"}),
    (ReadTimeout(1, 2), code_pb2.DEADLINE_EXCEEDED, {"required": "2", "received": "1"}),
    (StaleRead(2), code_pb2.UNAVAILABLE, {"received": "2"}),
    (WriteTimeout(1, 2), code_pb2.DEADLINE_EXCEEDED, {"required": "2", "received": "1"}),
    (Overloaded(0.25), code_pb2.RESOURCE_EXHAUSTED, {}),
    (TooManySiblings(100, 100), code_pb2.RESOURCE_EXHAUSTED, {"siblings": "100", "limit": "100"}),
    (StaleRing(4), code_pb2.FAILED_PRECONDITION, {"epoch": "4"}),
    (Corruption("1.sst", "bad checksum"), code_pb2.DATA_LOSS, {"field": "1.sst"}),
    (StorageFull("no space left"), code_pb2.RESOURCE_EXHAUSTED, {}),
    (StorageFailed("input/output error"), code_pb2.INTERNAL, {}),
    (InternalError("oh"), code_pb2.INTERNAL, {}),
    (ConfigError("never sent, but never lost either"), code_pb2.INTERNAL, {}),
]


def unpacked(status: status_pb2.Status, kind: Callable[[], Any]) -> list[Any]:
    found = []
    for detail in status.details:
        message = kind()
        if detail.Unpack(message):
            found.append(message)
    return found


@pytest.mark.parametrize(("error", "code", "fields"), CASES, ids=lambda case: type(case).__name__)
def test_code_and_error_info(error: KVError, code: int, fields: dict[str, str]) -> None:
    status = error_to_status(error)
    assert status.code == code
    (info,) = unpacked(status, error_details_pb2.ErrorInfo)
    assert info.domain == "kvstore"
    assert info.reason in {value.name for value in Error.Reason.DESCRIPTOR.values}
    assert dict(info.metadata) == {"outcome": error.outcome.value, **fields}


@pytest.mark.parametrize("error", [case[0] for case in CASES[:-1]], ids=lambda error: type(error).__name__)
def test_the_other_side_gets_the_same_error(error: KVError) -> None:
    received = error_from_status(error_to_status(error))
    assert type(received) is type(error)
    assert (str(received), received.outcome) == (str(error), error.outcome)


def test_only_what_may_be_repeated_unchanged_says_when() -> None:
    with_retry = {
        type(error): [delay.retry_delay.ToMilliseconds() for delay in delays]
        for error, _, _ in CASES
        if (delays := unpacked(error_to_status(error), error_details_pb2.RetryInfo))
    }
    assert with_retry == {Overloaded: [250], StorageFull: [1000]}


def test_bad_input_names_the_field() -> None:
    (bad,) = unpacked(error_to_status(InvalidRequest("key", "has 0 bytes")), error_details_pb2.BadRequest)
    (violation,) = bad.field_violations
    assert (violation.field, violation.description) == ("key", "has 0 bytes")


def test_a_write_that_timed_out_says_that_its_outcome_is_unknown() -> None:
    assert "outcome unknown" in error_to_status(WriteTimeout(1, 2)).message
    assert "unknown" not in error_to_status(ReadTimeout(1, 2)).message


def test_a_status_that_is_not_ours_is_an_internal_error() -> None:
    for details in ([], [any_pb2.Any(type_url="type.googleapis.com/kvstore.v1.Error", value=b"\xff\xff")]):
        error = error_from_status(status_pb2.Status(code=13, message="from a proxy", details=details))
        assert isinstance(error, InternalError)
        assert str(error) == "from a proxy"
