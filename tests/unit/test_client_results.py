"""What a read gives back is a value: compared by what was read, and never changed."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from kvstore.client.results import Result, Sibling, UndecodableValue
from kvstore.client.serializers import Json, decoded
from kvstore.protocol.client import Value

READ: Result[bytes] = Result(b"k", (Sibling(b"v", "text/plain", 3, 4),), b"context")


def resolving(read: Result[bytes]) -> Result[bytes]:
    return Result(read.key, read.siblings, read.context, resolver=lambda siblings: siblings[0].value)


def test_results_are_compared_by_what_was_read() -> None:
    assert resolving(READ) == READ
    assert hash(resolving(READ)) == hash(READ)
    assert repr(resolving(READ)) == repr(READ)
    assert "resolver" not in repr(READ)
    for other in (
        Result(b"other", READ.siblings, READ.context),
        Result(b"k", (Sibling(b"v"),), READ.context),
        Result(b"k", READ.siblings, b"other"),
        Result(b"k", READ.siblings, READ.context, default=b"none"),
        (b"k", READ.siblings, READ.context),
    ):
        assert other != READ


@pytest.mark.parametrize("field", ["key", "siblings", "context", "resolver"])
def test_a_result_does_not_change(field: str) -> None:
    with pytest.raises(AttributeError):
        setattr(READ, field, None)
    with pytest.raises(AttributeError):
        READ.siblings[0].value = b"other"  # type: ignore[misc]
    assert copy.copy(READ) is READ
    assert copy.deepcopy(READ) == pickle.loads(pickle.dumps(resolving(READ))) == READ


def test_what_cannot_be_decoded_has_no_value_to_look_at() -> None:
    stored = Value(b"{", "application/json", 3, 4)
    sibling: Sibling[Any] = decoded(Json(), "carts", b"k", stored)
    assert (sibling.content_type, sibling.time, sibling.expiry) == ("application/json", 3, 4)
    assert sibling != Sibling(b"{", "application/json", 3, 4)
    for each in (sibling, copy.deepcopy(sibling), pickle.loads(pickle.dumps(sibling))):
        with pytest.raises(UndecodableValue, match="serializer cannot decode"):
            _ = each.value
        assert repr(each).startswith("Sibling(UndecodableValue(")
