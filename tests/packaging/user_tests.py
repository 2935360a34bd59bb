"""What a user of the installed package tests with: the fixture comes with it."""

from __future__ import annotations

from kvstore.testing import Cluster


def test_a_write_survives_a_crash(kvcluster: Cluster) -> None:
    with kvcluster.connect() as db:
        db.bucket("carts").put("user:1", b"apples")
        assert db.bucket("carts").get("user:1").value == b"apples"
