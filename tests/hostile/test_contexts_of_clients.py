"""A context is a claim to have seen writes, and erases them: only one that the cluster gave out is taken."""

from __future__ import annotations

import google_crc32c
import msgspec
import pytest

from kvstore.contexts import Keyring, encode_context, encode_seen
from kvstore.errors import InvalidRequest, UnverifiedContext
from kvstore.lsm import MemoryFileSystem
from kvstore.protocol.peer import KeyOffer
from kvstore.protocol.table import PeerMessage
from kvstore.versions import Dot, EncodedVersion, SignedContext, decode_version
from tests.plain import Delete, Get, Put, data_key, token
from tests.unit.quorum_cluster import Cluster

KEY = b"user:1"
TOKEN = token("carts", KEY)
INTERNAL = data_key(TOKEN, "carts", KEY)


def actor_of(cluster: Cluster) -> Dot:
    """The dot of the last write, whose actor makes the next ones too."""
    stored = cluster.stored("n1", "carts", KEY)
    assert stored is not None
    return decode_version(EncodedVersion(stored)).context[-1]


def checksummed(context: tuple[Dot, ...]) -> bytes:
    """What the first version gave out: anybody can make it."""
    payload = msgspec.msgpack.encode(context)
    checksum = google_crc32c.value(TOKEN.to_bytes(8, "big") + payload)
    return b"\1" + int(checksum).to_bytes(4, "big") + payload


def forged(cluster: Cluster) -> dict[str, bytes]:
    cluster.stored_reply("n1", Put("carts", KEY, b"first"))
    claim = (Dot(actor_of(cluster).actor, 2**40),)
    honest = bytearray(cluster.found("n1", Get("carts", KEY)).context)
    changed = bytearray(honest)
    changed[-1] ^= 1
    other = cluster.stored_reply("n1", Put("carts", b"user:2", b"v")).context
    return {
        "a checksum": checksummed(claim),
        "a key of its own": encode_context(claim, INTERNAL, Keyring([b"0123456789abcdef"])),
        "a signature of nothing": b"\2" + bytes(16) + msgspec.msgpack.encode(claim),
        "a bit flipped": bytes(changed),
        "of another key": other,
        "a token of a session": encode_seen(claim, TOKEN),
        "rubbish": b"\xff" * 64,
        "one byte": b"\2",
    }


@pytest.mark.parametrize("kind", [*forged(Cluster())])
def test_twenty_of_twenty_later_writes_survive_a_forged_context(kind: str) -> None:
    """A counter that nobody has minted yet covered them: all were acknowledged, and gone."""
    cluster = Cluster()
    context = forged(cluster)[kind]
    for call in (
        Put("carts", KEY, b"x", SignedContext(context)),
        Delete("carts", KEY, SignedContext(context)),
    ):
        for node in cluster.hosts:
            assert isinstance(cluster.error(node, call), InvalidRequest)
    values = {b"first"}
    for i in range(20):
        cluster.stored_reply(f"n{1 + i % 3}", Put("carts", KEY, b"%d" % i))
        values.add(b"%d" % i)
    assert {s.value for s in cluster.found("n2", Get("carts", KEY, r=3)).siblings} == values


def test_even_a_signed_counter_that_nobody_can_have_minted_is_not_taken_as_seen() -> None:
    """Whoever has the key, by a theft or a defect: this node knows how far it has counted itself."""
    cluster = Cluster()
    cluster.stored_reply("n1", Put("carts", KEY, b"first"))
    dot = actor_of(cluster)
    sign = cluster.hosts["n1"].node.base.context_keys.sign
    ahead = sign((Dot(dot.actor, dot.counter + 1),), INTERNAL)
    assert isinstance(cluster.error("n1", Put("carts", KEY, b"x", ahead)), InvalidRequest)
    # n2 cannot know how far n1 has counted; but n1 hears of it, and never uses that actor again
    cluster.stored_reply("n2", Put("carts", KEY, b"x", ahead))
    assert cluster.refused == 1
    for i in range(20):
        cluster.stored_reply("n1", Put("carts", KEY, b"%d" % i))
    cluster.move(20.0)
    values = {s.value for s in cluster.found("n3", Get("carts", KEY, r=3)).siblings}
    assert values == {b"x", *(b"%d" % i for i in range(20))}
    assert cluster.refused == 1


def test_what_one_node_gave_out_is_good_at_all_of_them_and_after_every_restart() -> None:
    cluster = Cluster()
    cluster.stored_reply("n1", Put("carts", KEY, b"0"))
    for life in range(3):
        for node in cluster.hosts:
            contexts = [cluster.found(other, Get("carts", KEY)).context for other in cluster.hosts]
            assert len(set(contexts)) == 1, "they sign with the same key"
            assert cluster.stored_reply(node, Put("carts", KEY, b"v", contexts[life])).siblings == 1
        cluster.start_again()


def test_a_wiped_node_takes_contexts_of_before_and_all_take_those_that_it_gives_out() -> None:
    cluster = Cluster()
    cluster.stored_reply("n1", Put("carts", KEY, b"0"))
    cluster.move(20.0)
    context = cluster.found("n1", Get("carts", KEY)).context
    cluster.start_again(lambda: setattr(cluster.hosts["n1"], "fs", MemoryFileSystem()))
    assert cluster.stored_reply("n1", Put("carts", KEY, b"1", context)).siblings == 1
    context = cluster.found("n1", Get("carts", KEY)).context
    assert cluster.stored_reply("n2", Put("carts", KEY, b"2", context)).siblings == 1


def test_a_context_under_a_key_that_may_be_on_its_way_can_be_tried_again() -> None:
    """A node that has not heard from everyone cannot call a context forged. It is not applied either."""
    cluster = Cluster()
    strange = encode_context((Dot("n3.0.0", 1),), INTERNAL, Keyring([b"0123456789abcdef"]))
    assert isinstance(cluster.error("n1", Put("carts", KEY, b"x", strange)), InvalidRequest)

    def without_keys_of_n3(sender: str, _to: str, message: PeerMessage) -> bool:
        return not (sender == "n3" and isinstance(message, KeyOffer))

    class Lonely(Cluster):
        def run(self) -> None:
            self.passes = without_keys_of_n3
            super().run()

    lonely = Lonely()
    error = lonely.error("n1", Put("carts", KEY, b"x", strange))
    assert isinstance(error, UnverifiedContext)
    assert error.retryable
    assert lonely.found("n2", Get("carts", KEY)).siblings == ()


def test_what_was_read_can_be_written_back_however_long_the_history_of_the_key_is() -> None:
    """The context was bounded where clients send it, not where it grows: then the key was locked for ever."""
    cluster = Cluster()
    actors = [cluster.hosts[node].node.base.mint._actors for node in cluster.hosts]
    context = cluster.found("n1", Get("carts", KEY)).context
    for i in range(1200):
        context = cluster.stored_reply(f"n{1 + i % 3}", Put("carts", KEY, b"%d" % i, context)).context
        actors[i % 3].renew_all()  # as each start of a node does
    for life in range(2):
        found = cluster.found("n2", Get("carts", KEY))
        assert len(found.context) > 20_000
        assert cluster.stored_reply("n3", Put("carts", KEY, b"again", found.context)).siblings == 1
        assert cluster.stored_reply("n1", Delete("carts", KEY)).siblings == 0
        found = cluster.found("n2", Get("carts", KEY, r=3))
        assert found.siblings == ()
        assert cluster.stored_reply("n3", Put("carts", KEY, b"new", found.context)).siblings == 1
        seen = encode_seen(
            decode_version(EncodedVersion(cluster.stored("n3", "carts", KEY) or b"")).context, TOKEN
        )
        assert cluster.found("n1", Get("carts", KEY, r=1, seen=seen)).siblings[0].value == b"new", life
        context = cluster.found("n1", Get("carts", KEY)).context
        assert cluster.stored_reply("n2", Delete("carts", KEY, context)).siblings == 0
        cluster.start_again()
