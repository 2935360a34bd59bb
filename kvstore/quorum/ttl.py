"""When a value expires: the coordinator decides it once, inside the version, so that every replica agrees."""

from __future__ import annotations

from kvstore.versions import MAX_EXPIRY


def expiry(ttl: int, wall: int) -> int:
    """Milliseconds since 1970 at which a value written at `wall` expires, `ttl` seconds later; 0: never.

    A clock before 1970 must not make it one that never expires.
    """
    return min(max(wall + ttl * 1000, 1), MAX_EXPIRY) if ttl else 0
