"""Versions and contexts are formats: they are on disks and in the hands of clients.

The file was written once, by the first version. A difference is a break, not a reason to write it anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvstore.contexts import Keyring, decode_context, decode_seen, encode_context, encode_seen
from kvstore.versions import (
    EMPTY,
    Dot,
    DottedContext,
    EncodedVersion,
    InternalKey,
    SessionToken,
    Sibling,
    SignedContext,
    Version,
    decode_version,
    digest,
    encode_version,
)

GOLDEN: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "versions.json").read_text())
TOKEN = 1
PLACE = b"place"
KEYRING = Keyring([bytes(range(16))])

ONE = Dot("n1.2a.0123456789ab", 1)
GONE = Dot("n1.0.000000000001", 300)
LEFT, RIGHT = Dot("n1.0.b", 2**32), Dot("n2.0.a", 70000)
VERSIONS = {
    "empty": EMPTY,
    "one value": Version((ONE,), (Sibling(ONE, b"hello", 1_700_000_000_000 << 16, 0, "text/plain"),)),
    "tombstone": Version((GONE,), (Sibling(GONE, None, 65537),)),
    "two siblings, one expires": Version(
        (LEFT, RIGHT), (Sibling(LEFT, b"", 1), Sibling(RIGHT, b"\x00\xff", 2, 1_700_000_000_000))
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_versions_digests_and_contexts(name: str) -> None:
    version, golden = VERSIONS[name], GOLDEN[name]
    encoded = bytes.fromhex(golden["version"])
    context = bytes.fromhex(golden["token of a session"])
    assert encode_version(version) == encoded
    assert decode_version(EncodedVersion(encoded)) == version
    assert digest(EncodedVersion(encoded)).hex() == golden["digest"]
    assert encode_seen(version.context, TOKEN) == context
    assert decode_seen(SessionToken(context), TOKEN) == version.context
    signed = bytes.fromhex(golden["signed"])
    assert encode_context(version.context, InternalKey(PLACE), KEYRING) == signed
    seen = decode_context(SignedContext(signed), InternalKey(PLACE), KEYRING)
    assert seen == DottedContext(version.context)


def test_every_version_is_pinned() -> None:
    assert list(GOLDEN) == list(VERSIONS)
