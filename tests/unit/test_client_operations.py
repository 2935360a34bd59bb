"""Every request that a node understands can be made with both clients, with the options that it has."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
import pytest

from kvstore.client import asynchronous, synchronous
from kvstore.client.requests import Requests
from kvstore.protocol.client import CLIENT_REQUESTS

BY_THE_CLIENT = {"bucket", "epoch", "seen", "seen_empty"}
"""Fields that are no option of a call: of its bucket, of routing, and of sessions."""


@pytest.mark.parametrize("struct", CLIENT_REQUESTS, ids=lambda struct: struct.__name__)
def test_a_request_is_a_method_of_both_clients_with_its_fields_as_options(struct: Any) -> None:
    name = struct.__name__.lower()
    options = {field.name for field in msgspec.structs.fields(struct)} - BY_THE_CLIENT
    made_by = inspect.signature(getattr(Requests, name)).parameters
    assert set(made_by) - {"self"} == options
    for client in (asynchronous, synchronous):
        offered = inspect.signature(getattr(client.Bucket, name)).parameters
        assert options <= set(offered), client.__name__


@pytest.mark.parametrize("kind", ["Client", "Bucket", "Session"])
def test_the_synchronous_client_has_all_that_the_other_has(kind: str) -> None:
    def public(module: Any) -> set[str]:
        return {name for name in dir(getattr(module, kind)) if not name.startswith("_")}

    assert public(synchronous) == public(asynchronous)
