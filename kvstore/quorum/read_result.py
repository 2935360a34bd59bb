"""What the answers of replicas come to together, and whether a session may be shown it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvstore.errors import Corruption
from kvstore.protocol.client import ClientRequest, Get
from kvstore.quorum.replica import Replica
from kvstore.versions import CausalContext, EncodedVersion, InternalKey, decode_version, join

Answers = Mapping[str, EncodedVersion]
"""By node the version that it holds; empty: none."""


def compared(replica: Replica, key: InternalKey, answers: Answers) -> tuple[EncodedVersion, Sequence[str]]:
    """The version that has what all of them have, and which nodes do not hold just that.

    There is at least one answer. Raises Corruption when one of them cannot be decoded.
    """
    versions = list(answers.values())
    result = versions[0]
    if versions.count(result) == len(versions):  # as nearly always
        return result, ()
    for version in versions:
        result = replica.combine(key, result, version)
    if result:
        decode_version(result)  # beside empty ones it was not decoded above, and others are to be sent it
    return result, [node for node, version in answers.items() if version != result]


def unreadable(answers: Answers) -> list[tuple[str, Corruption]]:
    """Whose versions cannot be decoded, and why."""
    found = []
    for node, version in answers.items():
        try:
            if version:
                decode_version(version)
        except Corruption as error:
            found.append((node, error))
    return found


def has_seen(call: ClientRequest, seen: CausalContext, result: EncodedVersion) -> bool:
    """Whether a session may be shown this: it covers all that the session has `seen` of the key."""
    if not result:
        # a key that had no value and is known nowhere now was reaped
        return isinstance(call, Get) and call.seen_empty
    known = decode_version(result).context
    return join(known, seen) == known
