"""Errors on the wire: as `Error` messages in streams, as status and google.rpc details of unary calls."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from kvstore.errors import (
    Corruption,
    InternalError,
    InvalidRequest,
    KVError,
    Outcome,
    Overloaded,
    ReadTimeout,
    StaleRing,
    StorageFull,
    TooManySiblings,
    Unavailable,
    WriteTimeout,
)
from kvstore.v1.client_pb2 import Error

DOMAIN = "kvstore"

_STATUS = {
    Error.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    Error.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Error.READ_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Error.WRITE_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Error.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Error.TOO_MANY_SIBLINGS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Error.STALE_RING: grpc.StatusCode.FAILED_PRECONDITION,
    Error.CORRUPTION: grpc.StatusCode.DATA_LOSS,
    Error.STORAGE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Error.INTERNAL: grpc.StatusCode.INTERNAL,
}


def error_to_wire(error: KVError) -> Error:
    """The `Error` message that stands for a typed error."""
    message = Error(message=str(error), outcome_unknown=error.outcome is Outcome.UNKNOWN)
    match error:
        case InvalidRequest():
            message.reason, message.field, message.message = Error.INVALID_REQUEST, error.field, error.reason
        case Unavailable():
            message.reason = Error.UNAVAILABLE
            message.required, message.received = error.required, error.alive
        case ReadTimeout():
            message.reason = Error.READ_TIMEOUT
            message.required, message.received = error.required, error.received
        case WriteTimeout():
            message.reason = Error.WRITE_TIMEOUT
            message.required, message.received = error.required, error.received
        case Overloaded():
            message.reason, message.message = Error.OVERLOADED, error.reason
            message.retry_after_ms = round(error.retry_after * 1000)
        case TooManySiblings():
            message.reason = Error.TOO_MANY_SIBLINGS
            message.siblings, message.limit = error.siblings, error.limit
        case StaleRing():
            message.reason, message.epoch = Error.STALE_RING, error.epoch
        case Corruption():
            message.reason, message.field, message.message = Error.CORRUPTION, error.path, error.reason
        case StorageFull():
            message.reason = Error.STORAGE_FULL
        case _:
            message.reason = Error.INTERNAL
    return message


def error_from_wire(message: Error) -> KVError:
    """Inverse of `error_to_wire`; a reason of a newer version becomes an InternalError."""
    match message.reason:
        case Error.INVALID_REQUEST:
            return InvalidRequest(message.field, message.message)
        case Error.UNAVAILABLE:
            return Unavailable(message.required, message.received)
        case Error.READ_TIMEOUT:
            return ReadTimeout(message.received, message.required)
        case Error.WRITE_TIMEOUT:
            return WriteTimeout(message.received, message.required)
        case Error.OVERLOADED:
            return Overloaded(message.retry_after_ms / 1000, message.message)
        case Error.TOO_MANY_SIBLINGS:
            return TooManySiblings(message.siblings, message.limit)
        case Error.STALE_RING:
            return StaleRing(message.epoch)
        case Error.CORRUPTION:
            return Corruption(message.field, message.message)
        case Error.STORAGE_FULL:
            return StorageFull(message.message)
        case _:
            return InternalError(message.message)


def error_to_status(error: KVError) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """The status of a failed unary call, with ErrorInfo and, where they fit, RetryInfo and BadRequest."""
    message = error_to_wire(error)
    code = _STATUS[message.reason]
    info = error_details_pb2.ErrorInfo(reason=Error.Reason.Name(message.reason), domain=DOMAIN)
    info.metadata["outcome"] = error.outcome.value
    for field in ("field", "required", "received", "epoch", "siblings", "limit"):
        if value := getattr(message, field):
            info.metadata[field] = str(value)
    details = [_packed(info), _packed(message)]
    if isinstance(error, InvalidRequest):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.reason)
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    if isinstance(error, Overloaded):
        delay = Duration()
        delay.FromMilliseconds(message.retry_after_ms)
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return code, status_pb2.Status(code=code.value[0], message=str(error), details=details)


def error_from_status(status: status_pb2.Status) -> KVError:
    """The typed error of a failed unary call."""
    for detail in status.details:
        if detail.Is(Error.DESCRIPTOR):
            message = Error()
            detail.Unpack(message)
            return error_from_wire(message)
    return InternalError(status.message)


def _packed(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo | Error,
) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed
