"""The first or last bytes of a file: whose it is, and of which format."""

from __future__ import annotations

from kvstore.errors import UnsupportedFormat


def check_magic(path: str, found: bytes, magic: bytes, kind: str) -> None:
    """Raise UnsupportedFormat unless `found` is `magic`, whose last byte is the number of the format."""
    if found == magic:
        return
    if found[:-1] == magic[:-1]:
        raise UnsupportedFormat(path, f"is a {kind} of format {found[-1]}, this program reads {magic[-1]}")
    raise UnsupportedFormat(path, f"is no {kind}: it has another magic")
