"""How errors become one line and an exit code that scripts can use."""

from __future__ import annotations

from kvstore.errors import (
    ConfigError,
    InvalidRequest,
    KVError,
    Outcome,
    ReadTimeout,
    TooManySiblings,
    VersionTooLarge,
)

OK = 0
NOT_FOUND = 1
USAGE = 2
UNAVAILABLE = 3
TIMEOUT = 4
INCOMPLETE = 5
STORAGE = 6
FILES = 7
INTERRUPTED = 130
NOBODY_READS = 141
TERMINATED = 143

EXIT_CODES = {
    f"{OK}": "done",
    f"{NOT_FOUND}": "get: the key has no value; nothing else ends with it",
    f"{USAGE}": "a wrong flag, setting, key, value, context or line; nothing was changed by it",
    f"{UNAVAILABLE}": "no node, or too few of them, could be reached; nothing was changed",
    f"{TIMEOUT}": "timed out, or the connection broke: a write may or may not have been applied",
    f"{INCOMPLETE}": "import or export left something out or has it in a form that others cannot read, "
    "repair did not prove all equal, or status --check found something wrong; what is said",
    f"{STORAGE}": "data: the store is damaged, of another format, or could not be read or written",
    f"{FILES}": "a file or the output could not be read or written, as on a full disk",
    f"{INTERRUPTED}, {TERMINATED}": "interrupted by Ctrl-C, ended by SIGTERM; "
    f"like {TIMEOUT} for a write under way",
    f"{NOBODY_READS}": "whoever read the output has closed it",
}
"""What each means, for `kvctl --help`."""


def exit_code(error: KVError) -> int:
    """The exit code that an error ends the command with."""
    from kvstore.client.errors import PartialFailure  # here, since errors are rare and gRPC is slow to load
    from kvstore.client.results import UnresolvedSiblings
    from kvstore.client.transfer.records import BadLine

    match error:
        case PartialFailure():
            return exit_code(next(iter(error.failed.values())))
        case InvalidRequest() | ConfigError() | BadLine() | UnresolvedSiblings():
            return USAGE
        case TooManySiblings() | VersionTooLarge():  # the write is refused as it is, not for want of nodes
            return USAGE
        case ReadTimeout():
            return TIMEOUT
        case _ if error.outcome is Outcome.UNKNOWN:
            return TIMEOUT
        case _:
            return UNAVAILABLE
