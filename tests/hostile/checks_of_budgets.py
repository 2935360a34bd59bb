"""The budgets of a server: each with what takes it out, and the attack that it keeps off."""

from __future__ import annotations

import pytest

from kvstore.config import Limits
from kvstore.server import client_service, driver, grpc_calls, large_replies, options, scans, session, unread
from kvstore.server.frame_parts import FrameParts, PartsRoom
from kvstore.server.large_replies import LargeReplies
from kvstore.server.session import ClientStream
from kvstore.server.session_gets import SessionGets
from kvstore.server.turns import Turns
from kvstore.server.unread import Reader, UnreadReplies
from kvstore.wire import parts
from kvstore.wire.queue import PeerQueue
from tests.hostile.names_of_tests import budget, test_of
from tests.hostile.plants import Plant, Row, constant, without

_FULL = UnreadReplies.full.fget  # type: ignore[attr-defined]
_ROOM = LargeReplies.room.__wrapped__  # type: ignore[attr-defined]


def _option_out(name: str) -> Plant:
    """Serve without an option of gRPC."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        rest = [option for option in options.SERVER if option[0] != name]
        assert len(rest) < len(options.SERVER)
        patch.setattr(options, "SERVER", rest)

    return plant


def _unread(test: str) -> str:
    return test_of("hostile/test_unread_replies", test)


def _parts(test: str) -> str:
    return test_of("hostile/test_receive_limit", test)


def _pacing(test: str) -> str:
    return test_of("unit/test_server_pacing", test)


def _large(test: str) -> str:
    return test_of("unit/test_server_large_replies", test)


_REPLIES: list[Row] = [
    (
        "what one client leaves unread",
        without(Reader.refuses, "self.bytes >= most or ", ""),
        _unread("beyond_its_share_a_client_gets_small_replies_alone_and_no_more_gets_are_begun"),
    ),
    (
        "what all clients leave unread",
        without(_FULL, "self.bytes >= 2 * MOST_OF_ALL"),
        _unread("when_clients_hold_all_that_they_may_only_small_replies_are_given"),
    ),
    (
        "gets are not carried out for who does not read",
        without(UnreadReplies.until_room, "self.used_up(peer)"),
        _unread("unary_replies_that_are_not_read_are_refused_beyond_the_share_of_their_connection"),
    ),
    (
        "gets of a session wait until it reads",
        without(Reader.room, "(self._all.share - self.bytes) // self._expected - gets", "1 << 30"),
        _unread("beyond_its_share_a_client_gets_small_replies_alone_and_no_more_gets_are_begun"),
    ),
    (
        "a reply that is not read has a time",
        without(UnreadReplies._look, "now - since > patience + size / _SLOWEST"),
        _unread(
            "a_client_that_leaves_a_reply_unread_for_too_long_loses_its_connection[room-unary]",
        ),
    ),
    (
        "and a short one when there is no room",
        constant(unread, "_SHORT_PATIENCE", 1e9),
        _unread("when_clients_hold_all_that_they_may_only_small_replies_are_given"),
    ),
    (
        "the first gets of a client",
        constant(unread, "_UNKNOWN", 1),
        _unread("so_many_gets_of_a_client_are_begun_before_it_is_known_how_large_its_replies_are"),
    ),
    (
        "large gets that are under way",
        without(LargeReplies._fits, "self.bytes + size <= _AT_ONCE", "True"),
        _large("as_many_bytes_as_fit_are_under_way_and_the_next_in_their_order"),
    ),
    (
        "others have the loop after a large get",
        without(_ROOM, "took * min(1.0, size / _AT_ONCE)", "0.0"),
        _large("after_a_large_reply_others_have_the_loop_for_as_long_as_it_took"),
    ),
    (
        "a turn of the loop ends in time",
        without(Turns.share, "self._waiting or (self._open and self._loop.time() > self._begun + TURN)"),
        _pacing("what_comes_in_one_turn_is_carried_out_in_several_when_it_takes_long"),
    ),
    (
        "keys whose replies are known to be large",
        constant(large_replies, "_KEYS", 1 << 40),
        _large("what_was_large_is_known_until_it_is_small_again"),
    ),
]

_PEERS: list[Row] = [
    (
        "bytes of unfinished frames",
        without(PartsRoom.make, "self.bytes + size > _MOST_BYTES"),
        _parts("unfinished_frames_have_a_bound_for_all_streams_and_leave_nothing"),
    ),
    (
        "who completes his frame is not put off for who does not",
        without(PartsRoom.make, "stalest is None or now - self.unfinished[stalest] < _STALE", "True"),
        _parts("a_frame_that_is_not_completed_makes_room_for_others_and_is_given_up_in_time"),
    ),
    (
        "an unfinished frame has a time",
        without(FrameParts._keep, "loop.call_later(_LONGEST, self.give_up)", "None"),
        _parts("a_frame_that_is_not_completed_makes_room_for_others_and_is_given_up_in_time"),
    ),
    (
        "parts of a frame are so many at most",
        without(parts.part_of, " or part.left >= _MOST_PARTS", ""),
        _parts("parts_that_do_not_follow_are_refused[too many]"),
    ),
    (
        "parts follow on each other",
        without(FrameParts.add, "begun and part.left != self._left - 1"),
        _parts("parts_that_do_not_follow_are_refused[repeated]"),
    ),
    (
        "messages of one turn",
        constant(driver, "_TURN", 1 << 40),
        budget("a_long_frame_of_a_peer_is_checked_as_a_whole_and_handed_in_in_turns[reads]"),
    ),
    (
        "gossip that goes first",
        without(PeerQueue.put, "self._first >= limits.gossip"),
        budget("gossip_to_a_node_that_does_not_read_goes_first_and_is_bounded_in_number"),
    ),
]

_CONNECTIONS: list[Row] = [
    (
        "what comes at once",
        _option_out("grpc.max_receive_message_length"),
        _parts("who_sends_more_at_once_is_refused_and_the_log_stays_quiet"),
    ),
    (
        "what is taken of a stream before it is read",
        _option_out("grpc.http2.bdp_probe"),
        budget("options_of_grpc_that_bound_what_others_may_take"),
    ),
    (
        "connections",
        _option_out("grpc.max_allowed_incoming_connections"),
        budget("options_of_grpc_that_bound_what_others_may_take"),
    ),
    (
        "connections without calls",
        _option_out("grpc.max_connection_idle_ms"),
        budget("options_of_grpc_that_bound_what_others_may_take"),
    ),
    (
        "connections that say nothing",
        _option_out("grpc.server_handshake_timeout_ms"),
        budget("connections_that_say_nothing_end[nothing but how gRPC begins]"),
    ),
    (
        "sessions of a connection",
        constant(client_service, "_SESSIONS", 1 << 40),
        budget("sessions_of_one_connection_have_a_bound"),
    ),
    (
        "a stream is not ended while its client writes",
        constant(grpc_calls, "_LONGEST_WAIT", 0.0),
        budget("a_session_that_is_refused_while_its_client_writes_ends_with_its_status"),
    ),
]

_TURNS: list[Row] = [
    (
        "a call with too large a value, before it is parsed",
        without(Limits.check_size, "request > self.value + _BESIDE_VALUE"),
        budget("a_call_that_holds_too_large_a_value_is_refused_without_being_parsed"),
    ),
    (
        "pages of many scans",
        constant(scans, "_PAUSE_OF_MANY", 2.0),
        _pacing("pages_of_many_scans_come_seldomer_than_those_of_one"),
    ),
    (
        "puts of a frame that take long",
        without(ClientStream._begin_some, "fitting(len(some), took, _CALLS)", "_CALLS"),
        _pacing("puts_of_a_frame_that_take_long_are_begun_fewer_at_a_time"),
    ),
    (
        "work that does not wait",
        without(Turns.spend, "self._spent > _NOTICED"),
        _pacing("what_did_not_wait_counts_for_its_turn_however_little_each_of_it_takes"),
    ),
    (
        "the turns after one that was used up",
        without(Turns._end, "_PASSES if took > TURN else 0", "0"),
        _pacing(
            "after_a_turn_that_was_used_up_others_have_eight_and_much_that_takes_little_goes_on_together"
        ),
    ),
    (
        "long frames of many clients",
        constant(session, "_LONG", 1 << 40),
        _pacing("long_frames_of_many_clients_are_parsed_one_in_a_turn"),
    ),
    (
        "gets of a session that take long",
        without(SessionGets._begin_some, "fitting(len(requests), took, _AT_ONCE)", "_AT_ONCE"),
        _pacing("gets_of_a_session_that_take_long_are_begun_fewer_at_a_time"),
    ),
    (
        "puts of many sessions",
        without(ClientStream._begin_rest, "await self._turns.share()", "pass"),
        _pacing("puts_of_many_sessions_share_the_turns_and_none_goes_before_the_others"),
    ),
]

TOPICS = {
    "turns of the loop": _TURNS,
    "replies": _REPLIES,
    "streams of peers": _PEERS,
    "connections": _CONNECTIONS,
}
