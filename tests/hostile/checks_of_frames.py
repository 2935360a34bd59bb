"""The checks of what other nodes send: each with what takes it out, and the attack that it keeps off."""

from __future__ import annotations

from kvstore.gossip.beliefs import Beliefs
from kvstore.gossip.membership import Membership
from kvstore.membership import acceptor
from kvstore.node import frame_check, liveness
from kvstore.node.decisions import Decisions
from kvstore.node.frame_check import FrameCheck
from kvstore.node.spread import Spread
from kvstore.protocol.internal_key import check_data_key
from kvstore.quorum.actors import Actors
from kvstore.quorum.background import exchange
from kvstore.quorum.background.exchange import Exchange
from kvstore.quorum.held_outputs import HeldOutputs
from kvstore.quorum.mint import Mint
from kvstore.server.handshake import check_caller, check_welcome
from kvstore.versions import Dot, Sibling, _decoded, check_version, reconcile
from kvstore.wire.codec import same_length
from tests.hostile.names_of_tests import (
    alone,
    context,
    frame,
    step,
    stored,
    stranger,
    test_of,
)
from tests.hostile.plants import (
    Row,
    incarnations_unbounded,
    unbounded,
    without,
)


def _exchange(test: str) -> str:
    return test_of("unit/test_quorum_exchange", test)


def _decision(test: str) -> str:
    return test_of("unit/test_node_decisions", test)


_FRAMES: list[Row] = [
    (
        "a key is checked at all",
        without(FrameCheck._key, "check_data_key(key, self._limits)", "pass"),
        frame("write, key: nothing"),
    ),
    (
        "a key is in the keyspace of data",
        without(check_data_key, "internal[:1] == DATA_KEYSPACE", "True"),
        frame("write, key: the keyspace of hints"),
    ),
    (
        "a key has a bucket",
        without(check_data_key, "bucket_bytes > 0", "True"),
        frame("write, key: without NUL, with its token"),
    ),
    (
        "a key is not empty",
        without(check_data_key, "0 < len(named)", "0 <= len(named)"),
        frame("read, key: no key"),
    ),
    (
        "a key is not too long",
        without(check_data_key, "<= limits.key", "< 1 << 40"),
        frame("hint, key: a key that is too long"),
    ),
    (
        "a key has its own token",
        without(check_data_key, "_murmur3(named, _SEED)[_FIRST_HALF]", "internal[1:9]"),
        frame("write, key: the token of another key"),
    ),
    (
        "a key's bucket has a name",
        without(check_data_key, "_is_bucket(named[:bucket_bytes])", "True"),
        frame("reap, key: a bucket that is no name"),
    ),
    (
        "a bound is no longer than a key",
        without(FrameCheck._key_bound, "len(key) > self._longest_key"),
        frame("an answer up to a bound that is longer than any key"),
    ),
    (
        "a reply's version is checked",
        without(FrameCheck._version_or_none, "if version:", "if False:"),
        frame("reply, rubbish"),
    ),
    (
        "a digest's length",
        without(FrameCheck._digest, "len(digest) != _DIGEST_BYTES"),
        frame("a digest that is too short"),
    ),
    (
        "a hint is for a member",
        without(FrameCheck._hint_target, "ownership.state.member(node) is None"),
        frame("a hint for nobody"),
    ),
    (
        "a hint is for another",
        without(FrameCheck._hint_target, "node == ownership.name"),
        frame("a hint for the receiver"),
    ),
    (
        "a partition of the ring",
        without(FrameCheck._partition, "partition >= self._ownership.state.ring.partitions"),
        frame("a partition that there is none of"),
    ),
    (
        "a tree's n is not 0",
        without(FrameCheck._tree_n, "1 <= n", "True"),
        frame("a tree of keys without replicas"),
    ),
    (
        "a tree's n is not above the members",
        without(FrameCheck._tree_n, "n <= len(members)", "n"),
        frame("a repair of keys with more replicas than members"),
    ),
    ("a node of a tree", without(FrameCheck._tree_node, "number >= NODES"), frame("a node that no tree has")),
    (
        "leaves are in order",
        without(FrameCheck._leaves, "any(first >= second for first, second in pairwise(leaves))"),
        frame("a leaf twice"),
    ),
    (
        "items are whole",
        without(FrameCheck._items, "len(items) % ITEM_BYTES"),
        frame("items that end within one"),
    ),
    (
        "a key for contexts has its length",
        without(FrameCheck._context_key, "len(key) != KEY_BYTES"),
        frame("a key for contexts that is too short"),
    ),
    (
        "the name of a principal",
        without(FrameCheck._principal, "len(name) > MOST_CHARACTERS"),
        frame("a request for a principal with an endless name"),
    ),
    (
        "each item of a list is checked",
        without(frame_check._each, "if item is not None", "if False"),
        frame("difference, key: nothing"),
    ),
    (
        "columns are of one length",
        without(same_length, "len(set(map(len, columns))) != 1"),
        test_of("property/test_wire_session", "columns_of_different_lengths_are_refused"),
    ),
]

_EXCHANGED: list[Row] = [
    (
        "an answer that is cut goes on",
        without(exchange._difference, "answer.reached and (answer.reached <= after or not answer.versions)"),
        _exchange("an_answer_that_is_cut_and_leads_nowhere_ends_the_exchange[nothing in it]"),
    ),
    (
        "an answer that is repeated is not asked for again",
        without(Exchange._exchange, " or reached <= furthest", ""),
        _exchange("the_same_answer_again_and_again_ends_the_exchange"),
    ),
]

_VERSIONS: list[Row] = [
    (
        "its format",
        without(_decoded, "not data or data[0] != _FORMAT_BYTE"),
        alone("a_version_of_another_format_is_never_taken_for_one_of_this"),
    ),
    (
        "actors in order, each once",
        without(check_version, "not _ascend([actor for actor, _ in context])"),
        frame("write, an actor twice"),
    ),
    (
        "siblings in order, each once",
        without(check_version, "not _ascend([sibling.dot for sibling in siblings])"),
        frame("write, a sibling twice"),
    ),
    (
        "siblings are covered",
        without(check_version, "highest.get(sibling.dot.actor, 0) < sibling.dot.counter"),
        frame("write, a sibling that its context does not cover"),
    ),
    (
        "canonical, of one sibling",
        without(
            check_version, "_is_canonical(version, data):\n            return", "True:\n            return"
        ),
        frame("write, an integer in five bytes that fits into one"),
    ),
    (
        "canonical, of several",
        without(check_version, "not _is_canonical(version, data)"),
        frame("write, an integer in five bytes, of a tombstone of two actors"),
    ),
    ("an actor has a name", unbounded(Dot, "min_length=1, "), frame("write, an actor without a name")),
    (
        "an actor's name is not endless",
        unbounded(Dot, ", max_length=_MAX_ACTOR"),
        frame("write, an actor with an endless name"),
    ),
    ("a counter is above 0", unbounded(Dot, "ge=1, "), frame("write, counter 0")),
    (
        "a counter is far from its end",
        unbounded(Dot, ", le=MAX_COUNTER"),
        frame("write, counter past its bound"),
    ),
    (
        "a time is not negative",
        unbounded(Sibling, "ge=0, le=MAX_TIME", "le=MAX_TIME"),
        frame("hint, time -1"),
    ),
    (
        "a time is far from its end",
        unbounded(Sibling, "ge=0, le=MAX_TIME", "ge=0"),
        frame("hint, time past its bound"),
    ),
    (
        "an expiry is not negative",
        unbounded(Sibling, "ge=0, le=MAX_EXPIRY", "le=MAX_EXPIRY"),
        frame("repair, expiry -1"),
    ),
    (
        "an expiry is far from its end",
        unbounded(Sibling, "ge=0, le=MAX_EXPIRY", "ge=0"),
        frame("repair, expiry past its bound"),
    ),
    (
        "a content type is not endless",
        unbounded(Sibling, "Meta(max_length=Limits.content_type)", "None"),
        frame("write, a content type of 60,000 characters"),
    ),
    (
        "two values under one dot",
        without(reconcile, "s if s == other else max(s, other, key=_rank)", "s"),
        test_of("hostile/test_forged_dots", "a_read_repairs_them_and_a_write_replaces_what_it_saw"),
    ),
    (
        "names no write yet to be made",
        without(
            FrameCheck._version,
            "not self._can_have_minted(check_version(version))",
            "check_version(version) is None",
        ),
        test_of(
            "hostile/test_wrong_frames",
            "a_version_that_names_writes_which_this_node_has_yet_to_make_is_refused",
        ),
    ),
    (
        "an actor that others claim to know is given up",
        without(Mint.can_have_minted, "self._actors.renew_all()", "pass"),
        context("even_a_signed_counter_that_nobody_can_have_minted_is_not_taken_as_seen"),
    ),
    (
        "no dot that is stored already",
        without(Actors.mint, "not covers(known, dot)", "True"),
        alone("a_write_is_never_one_that_is_stored_as_seen_already"),
    ),
]

_GOSSIPED: list[Row] = [
    (
        "an incarnation in a frame counts as the last one",
        incarnations_unbounded,
        alone("an_incarnation_beyond_the_last_one_counts_as_that"),
    ),
    (
        "a refutation goes no further than the last one",
        without(Beliefs._refute, "min(update.incarnation + 1, MAX_INCARNATION)", "update.incarnation + 1"),
        alone("a_refutation_goes_no_further_than_the_last_incarnation"),
    ),
    (
        "a stored incarnation counts as the last one",
        without(
            liveness.next_incarnation,
            'min(int.from_bytes(stored, "big") + 1, MAX_INCARNATION)',
            'int.from_bytes(stored, "big") + 1',
        ),
        stored("an incarnation of 2^64-1"),
    ),
    (
        "a claim about who is no member",
        without(Beliefs.hear, "node not in self._table"),
        alone("gossip_of_strangers_is_ignored"),
    ),
    (
        "at the last incarnation a member's own word counts",
        without(Membership.accept, "last and update.status is not row.status"),
        test_of("hostile/test_wrong_frames", "a_member_at_the_last_incarnation_still_dies_and_comes_back"),
    ),
]

_HANDSHAKE: list[Row] = [
    (
        "another cluster",
        without(check_caller, "cluster != state.cluster_id"),
        stranger("n2-state0-is of cluster 'other'"),
    ),
    (
        "a stranger",
        without(check_caller, "state.member(node) is None"),
        stranger("n9-state1-'n9' is no member"),
    ),
    (
        "the node's own id",
        without(check_caller, "node == me"),
        step("the_own_id_is_refused_whatever_epoch_it_claims"),
    ),
    (
        "what lasts, in another epoch",
        without(check_caller, "given.get(_LASTING) != _lasting(state) or ", ""),
        step("another_epoch_proves_nothing_of_other_partitions"),
    ),
    (
        "all else, in the same epoch",
        without(check_caller, "same_epoch and not _same_shape(given, state)"),
        stranger("n2-state5-or buckets: bucket b"),
    ),
    (
        "who answers at a peer's address",
        without(check_welcome, "welcome.node != peer"),
        test_of("unit/test_server_links", "another_node_at_a_peers_address_is_noticed"),
    ),
]

_DECISIONS: list[Row] = [
    (
        "the bound of a ballot",
        without(frame_check._ballot_round, "number > NEVER_AGAIN.round"),
        frame("a vote of a ballot past its bound"),
    ),
    (
        "how far one ballot goes",
        without(acceptor.answer, "ballot.round > current.promised.round + MAX_LEAP"),
        _decision("one_wrong_ballot_does_not_use_up_all_rounds"),
    ),
    (
        "whose ballot it is",
        without(Decisions.on_question, "question.ballot.node != sender"),
        _decision("what_a_peer_cannot_say_is_counted_and_changes_nothing"),
    ),
    (
        "a value that cannot be the next state",
        without(acceptor._accept, "check_next(state, question.value)", "pass"),
        _decision("what_a_peer_cannot_say_is_counted_and_changes_nothing"),
    ),
    (
        "how often a document is sent",
        without(Spread.on_wanted, "epoch < state.epoch or now.mono >= sent_at + _PATIENCE", "True"),
        _decision("a_document_is_sent_once_to_who_asks_for_it_all_the_time"),
    ),
    (
        "a promise is on the disk before it is given",
        without(HeldOutputs.after_sync, "lsn <= self._log.durable_lsn", "True"),
        _decision("nothing_is_said_before_it_is_on_the_disk[Durability.INTERVAL]"),
    ),
]

TOPICS = {
    "frames of peers": _FRAMES,
    "decisions": _DECISIONS,
    "versions": _VERSIONS,
    "exchanges": _EXCHANGED,
    "gossip": _GOSSIPED,
    "handshake": _HANDSHAKE,
}
