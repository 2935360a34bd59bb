"""Large replies in pieces are, joined, what they are when they are made at once."""

from __future__ import annotations

import pytest

from kvstore.protocol.client import Explain, Found, Value
from kvstore.v1 import client_pb2 as pb
from kvstore.versions import SignedContext
from kvstore.wire.client import reply_to_wire
from kvstore.wire.pieces import answer_in_pieces, found_in_pieces
from kvstore.wire.session import decode_replies

CONTEXT = SignedContext(b"signed")
VALUES = [
    (),
    (Value(b""),),
    (Value(b"v" * 127), Value(b"w" * 128, "text/plain", 12, 13)),
    (Value(bytes(3_000_000), "", 1 << 50), Value(b"x" * 16_384)),
]


@pytest.mark.parametrize("siblings", VALUES, ids=len)
@pytest.mark.parametrize("explain", [None, Explain("n1", 1, 2, ("n1", "n2"))])
def test_a_reply_in_pieces_is_the_same(siblings: tuple[Value, ...], explain: Explain | None) -> None:
    found = Found(siblings, CONTEXT, explain)
    joined = b"".join(found_in_pieces(found))
    assert pb.GetResponse.FromString(joined) == reply_to_wire(found)
    for number in (0, 1, 1 << 40):
        assert list(decode_replies(b"".join(answer_in_pieces(number, found)))) == [(number, found)]


def test_values_are_not_copied() -> None:
    value = bytes(1_000_000)
    assert any(piece is value for piece in answer_in_pieces(1, Found((Value(value),), CONTEXT)))
