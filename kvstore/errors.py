"""Every error that kvstore raises, with what the caller may conclude from it.

Two questions decide what a program does with an error: was the operation applied, and is it
safe to try again? Each class answers both (`outcome`, `retryable`); docs/guarantees.md explains.
The names follow the cassandra-driver, because people already know them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any


class Outcome(Enum):
    """What is known about an operation that ended with an error."""

    NOT_APPLIED = "not applied"
    """The operation has had no effect and never will."""
    UNKNOWN = "outcome unknown"
    """The operation may have been applied, or may still be applied later."""


class KVError(Exception):
    """Base of all kvstore errors.

    `outcome` says whether a write can have had an effect; `retryable` whether trying the same
    request again, unchanged, is both safe and has a chance.
    """

    outcome: Outcome = Outcome.NOT_APPLIED
    retryable: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy its text and attributes; calling the class again would need its own arguments."""
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[KVError], args: tuple[Any, ...]) -> KVError:
    return kind.__new__(kind, *args)


class InvalidRequest(KVError):
    """The request itself is wrong: `field` names the part, the message says why and the limit."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.reason = message


class Unavailable(KVError):
    """Fewer replicas are alive than the request requires; nothing was tried."""

    retryable = True

    def __init__(self, required: int, alive: int) -> None:
        super().__init__(f"{required} replicas required, {alive} alive")
        self.required = required
        self.alive = alive


class Timeout(KVError):
    """Too few replicas answered in time: a ReadTimeout or a WriteTimeout."""

    def __init__(self, message: str, received: int, required: int) -> None:
        super().__init__(message)
        self.received = received
        self.required = required


class ReadTimeout(Timeout):
    """Too few replicas answered a read in time. Reads change nothing, so retrying is safe."""

    retryable = True

    def __init__(self, received: int, required: int) -> None:
        message = f"read timed out: {received} of {required} replicas answered"
        super().__init__(message, received, required)


class StaleRead(KVError):
    """None of the replicas that answered has seen what the session of this read has: it is out of reach now.

    The client goes on trying until its timeout. Reads change nothing, so retrying is safe.
    """

    retryable = True

    def __init__(self, received: int) -> None:
        super().__init__(f"what this session has seen is not on any of the {received} replicas that answered")
        self.received = received


class WriteTimeout(Timeout):
    """Too few replicas confirmed a write in time. It may be applied: a timeout is not a failure."""

    outcome = Outcome.UNKNOWN

    def __init__(self, received: int, required: int) -> None:
        message = f"write timed out: {received} of {required} replicas confirmed it; it may still be applied"
        super().__init__(message, received, required)


class Overloaded(KVError):
    """A bounded queue or a limit is full; `retry_after` is in seconds."""

    retryable = True

    def __init__(self, retry_after: float, reason: str = "node is overloaded") -> None:
        super().__init__(f"{reason}; retry after {retry_after:g} s")
        self.retry_after = retry_after
        self.reason = reason


class TooManySiblings(KVError):
    """The write would leave more siblings than a key may have: read, resolve, write with the context."""

    def __init__(self, siblings: int, limit: int) -> None:
        super().__init__(
            f"key has {siblings} siblings and the limit is {limit}: read it, and put through the same bucket "
            "object, which replaces what was read, or with the context of that read"
        )
        self.siblings = siblings
        self.limit = limit


class VersionTooLarge(KVError):
    """The siblings of the key together would have `size` bytes, and `limit` is the most.

    Read, resolve, and write with the context. The key can be read and deleted all the same.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"the siblings of the key would have {size} bytes together and the limit is {limit}: "
            "write with the context of a read"
        )
        self.size = size
        self.limit = limit


class UnverifiedContext(KVError):
    """The context is signed with a key of the cluster that this node does not have yet: try again."""

    retryable = True

    def __init__(self) -> None:
        super().__init__("this node cannot tell yet whether its cluster gave out the context")


class NodeStopping(KVError):
    """The node is about to stop and takes no new requests: nothing was done, and another node can do it."""

    retryable = True

    def __init__(self) -> None:
        super().__init__("the node is stopping")


class StaleRing(KVError):
    """The request was routed with cluster state of another epoch; refresh the ring and retry."""

    retryable = True

    def __init__(self, epoch: int) -> None:
        super().__init__(f"stale ring: this node is at epoch {epoch}")
        self.epoch = epoch


class ChangeLost(KVError):
    """Another change of the cluster was decided on as `epoch`: look at what it is, and ask again."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"another change was decided on as epoch {epoch}: nothing of this one was done")
        self.epoch = epoch


class ChangeUnknown(KVError):
    """It is not known whether a change of the cluster was decided on as `epoch`: it may be, also later."""

    outcome = Outcome.UNKNOWN

    def __init__(self, epoch: int) -> None:
        super().__init__(f"too few members answered in time: the change may become epoch {epoch} yet")
        self.epoch = epoch


class NoNodeAvailable(KVError):
    """No node could be reached; `errors` maps each endpoint to what happened there.

    `outcome` is UNKNOWN when a request was sent and the connection then broke.
    """

    retryable = True

    def __init__(self, errors: Mapping[str, str], outcome: Outcome = Outcome.NOT_APPLIED) -> None:
        tried = "; ".join(f"{endpoint}: {reason}" for endpoint, reason in errors.items())
        super().__init__(f"no node available ({tried or 'no endpoint given'})")
        self.errors = dict(errors)
        self.outcome = outcome
        self.retryable = outcome is Outcome.NOT_APPLIED


class InternalError(KVError):
    """The node met a defect of its own; the message is all that is known."""

    outcome = Outcome.UNKNOWN


class StorageError(KVError):
    """Base of what the storage engine raises."""


class Corruption(StorageError):
    """Stored bytes do not match their checksum or format. Never "not found".

    `path` is the file, `offset` where in it the bad block or record begins, if that is known.
    """

    def __init__(self, path: str, reason: str, offset: int | None = None) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
        self.offset = offset


class UnsupportedFormat(StorageError):
    """A file is not ours, or is of a newer format version than this program reads."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class StorageFull(StorageError):
    """The disk has no space: writes are refused, reads go on."""

    retryable = True


class StorageFailed(StorageError):
    """A write or sync failed for another reason than space: the process must end and recover."""

    outcome = Outcome.UNKNOWN


class ConfigError(KVError):
    """A setting, flag or file given at start is wrong; one line says which and why."""


class WrongDataDirectory(ConfigError):
    """The data directory belongs to another node or cluster, or is in use by a running one."""
