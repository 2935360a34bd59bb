"""What a user of the installed package writes: `mypy --strict` has to take it, and it has to run."""

from __future__ import annotations

import sys

import kvstore


def joined(siblings: tuple[kvstore.Sibling, ...]) -> bytes:
    """One value of concurrent ones."""
    return b"+".join(sorted(sibling.value for sibling in siblings))


def main(endpoints: str) -> None:
    """Write, read, and resolve siblings."""
    with kvstore.connect(endpoints) as db:
        carts = db.bucket("carts", resolver=joined)
        read: kvstore.Result = carts.get("user:1")
        stored: kvstore.Stored = carts.put("user:1", b"apples", context=read.context)
        carts.put("user:1", b"pears", context=read.context)
        found: kvstore.Result = carts.get("user:1")
        value: bytes | None = found.value
        print(value, stored.siblings, [sibling.value for sibling in found.siblings])
        try:
            carts.put("", b"no key")
        except kvstore.InvalidRequest as error:
            print(f"refused, as it should be: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
