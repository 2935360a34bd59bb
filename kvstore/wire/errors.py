"""Errors on the wire: as `Error` messages in streams, as status and google.rpc details of unary calls."""

from __future__ import annotations

from contextlib import suppress

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from kvstore.errors import (
    ChangeLost,
    ChangeUnknown,
    Corruption,
    InternalError,
    InvalidRequest,
    KVError,
    NodeStopping,
    Outcome,
    Overloaded,
    ReadTimeout,
    StaleRead,
    StaleRing,
    StorageFailed,
    StorageFull,
    TooManySiblings,
    Unavailable,
    UnverifiedContext,
    VersionTooLarge,
    WriteTimeout,
)
from kvstore.v1.client_pb2 import Error

DOMAIN = "kvstore"

_CODES: dict[int, int] = {
    Error.INVALID_REQUEST: code_pb2.INVALID_ARGUMENT,
    Error.UNAVAILABLE: code_pb2.UNAVAILABLE,
    Error.READ_TIMEOUT: code_pb2.DEADLINE_EXCEEDED,
    Error.WRITE_TIMEOUT: code_pb2.DEADLINE_EXCEEDED,
    Error.OVERLOADED: code_pb2.RESOURCE_EXHAUSTED,
    Error.TOO_MANY_SIBLINGS: code_pb2.RESOURCE_EXHAUSTED,
    Error.STALE_RING: code_pb2.FAILED_PRECONDITION,
    Error.CORRUPTION: code_pb2.DATA_LOSS,
    Error.STORAGE_FULL: code_pb2.RESOURCE_EXHAUSTED,
    Error.INTERNAL: code_pb2.INTERNAL,
    Error.STALE_READ: code_pb2.UNAVAILABLE,
    Error.STORAGE_FAILED: code_pb2.INTERNAL,
    Error.VERSION_TOO_LARGE: code_pb2.RESOURCE_EXHAUSTED,
    Error.UNVERIFIED_CONTEXT: code_pb2.UNAVAILABLE,
    Error.NODE_STOPPING: code_pb2.UNAVAILABLE,
    Error.CHANGE_LOST: code_pb2.ABORTED,
    Error.CHANGE_UNKNOWN: code_pb2.DEADLINE_EXCEEDED,
}
_OF_EPOCHS: dict[type[KVError], Error.Reason] = {
    StaleRing: Error.STALE_RING,
    ChangeLost: Error.CHANGE_LOST,
    ChangeUnknown: Error.CHANGE_UNKNOWN,
}
_FULL_RETRY_SECONDS = 1.0
"""How soon a client may ask again when the disk is full: nobody knows when there will be space."""


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
        case StaleRead():
            message.reason, message.received = Error.STALE_READ, error.received
        case WriteTimeout():
            message.reason = Error.WRITE_TIMEOUT
            message.required, message.received = error.required, error.received
        case Overloaded():
            message.reason, message.message = Error.OVERLOADED, error.reason
            message.retry_after_ms = round(error.retry_after * 1000)
        case TooManySiblings():
            message.reason = Error.TOO_MANY_SIBLINGS
            message.siblings, message.limit = error.siblings, error.limit
        case VersionTooLarge():
            message.reason = Error.VERSION_TOO_LARGE
            message.size, message.limit = error.size, error.limit
        case UnverifiedContext():
            message.reason = Error.UNVERIFIED_CONTEXT
        case NodeStopping():
            message.reason = Error.NODE_STOPPING
        case StaleRing() | ChangeLost() | ChangeUnknown():
            message.reason, message.epoch = _OF_EPOCHS[type(error)], error.epoch
        case Corruption():
            message.reason, message.field, message.message = Error.CORRUPTION, error.path, error.reason
        case StorageFull():
            message.reason = Error.STORAGE_FULL
        case StorageFailed():
            message.reason = Error.STORAGE_FAILED
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
        case Error.STALE_READ:
            return StaleRead(message.received)
        case Error.WRITE_TIMEOUT:
            return WriteTimeout(message.received, message.required)
        case Error.OVERLOADED:
            return Overloaded(message.retry_after_ms / 1000, message.message)
        case Error.TOO_MANY_SIBLINGS:
            return TooManySiblings(message.siblings, message.limit)
        case Error.VERSION_TOO_LARGE:
            return VersionTooLarge(message.size, message.limit)
        case Error.UNVERIFIED_CONTEXT:
            return UnverifiedContext()
        case Error.NODE_STOPPING:
            return NodeStopping()
        case Error.CHANGE_LOST:
            return ChangeLost(message.epoch)
        case Error.CHANGE_UNKNOWN:
            return ChangeUnknown(message.epoch)
        case Error.STALE_RING:
            return StaleRing(message.epoch)
        case Error.CORRUPTION:
            return Corruption(message.field, message.message)
        case Error.STORAGE_FULL:
            return StorageFull(message.message)
        case Error.STORAGE_FAILED:
            return StorageFailed(message.message)
        case _:
            return InternalError(message.message)


def error_to_status(error: KVError) -> status_pb2.Status:
    """The status of a failed unary call.

    Its details are ErrorInfo, our own `Error`, BadRequest for bad input, and RetryInfo where asking
    again unchanged can help: a key with too many siblings must be read and resolved first.
    """
    message = error_to_wire(error)
    info = error_details_pb2.ErrorInfo(reason=Error.Reason.Name(message.reason), domain=DOMAIN)
    info.metadata["outcome"] = error.outcome.value
    for field in ("field", "required", "received", "epoch", "siblings", "limit", "size"):
        if value := getattr(message, field):
            info.metadata[field] = str(value)
    details = [_packed(info), _packed(message)]
    match error:
        case InvalidRequest(field=field, reason=reason):
            violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=reason)
            details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
        case Overloaded(retry_after=seconds):
            details.append(_retry_info(seconds))
        case StorageFull():
            details.append(_retry_info(_FULL_RETRY_SECONDS))
        case _:  # asking again unchanged cannot help
            pass
    text = f"{error} ({error.outcome.value})" if error.outcome is Outcome.UNKNOWN else str(error)
    return status_pb2.Status(code=_CODES[message.reason], message=text, details=details)


def _retry_info(seconds: float) -> Any:
    delay = Duration()
    delay.FromMilliseconds(round(seconds * 1000))
    return _packed(error_details_pb2.RetryInfo(retry_delay=delay))


def error_from_status(status: status_pb2.Status) -> KVError:
    """The typed error of a failed unary call; InternalError when the status is not one of ours."""
    for detail in status.details:
        if detail.Is(Error.DESCRIPTOR):
            with suppress(DecodeError):
                return error_from_wire(Error.FromString(detail.value))
    return InternalError(status.message)


def _packed(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo | Error,
) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed
