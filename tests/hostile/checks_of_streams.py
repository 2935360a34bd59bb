"""The bounds of the port of a node: each with what takes it out, and the attack that it keeps off."""

from __future__ import annotations

from kvstore.frames import incoming, stream
from kvstore.frames.framing import Framing
from kvstore.frames.incoming import Incoming
from kvstore.frames.stream import FrameStream
from kvstore.server import stream_calls
from kvstore.server.listener import Listener, _Arrival
from kvstore.server.pass_through import Side
from kvstore.server.unfinished import UnfinishedMessages
from tests.hostile.names_of_tests import test_of
from tests.hostile.plants import Row, constant, without


def _streams(test: str) -> str:
    return test_of("hostile/test_streams", test)


_STREAMS: list[Row] = [
    (
        "kinds of frames",
        without(Framing._check, "kind not in _KINDS"),
        _streams("what_is_no_stream_is_told_why"),
    ),
    (
        "what comes at once on a stream",
        without(Framing._check, "length > most"),
        _streams("what_is_no_stream_is_told_why"),
    ),
    (
        "a stream is opened before it is used",
        without(Incoming._take, "frame.kind != Kind.OPEN"),
        _streams("who_opens_no_stream_is_closed_out_in_time"),
    ),
    (
        "a stream is opened once",
        without(Incoming._take, 'raise FramingError("frame that opens a stream which is open")', "pass"),
        _streams("what_is_no_stream_is_told_why"),
    ),
    (
        "who opens no stream",
        without(_Arrival.connection_made, "_BEGIN_SECONDS", "1e6"),
        _streams("who_opens_no_stream_is_closed_out_in_time"),
    ),
    (
        "connections of the port",
        without(Listener.arrived, "len(self._connections) >= self._most"),
        _streams("connections_have_a_bound"),
    ),
    (
        "messages that nobody has read",
        constant(stream, "_MOST_UNREAD", 1 << 40),
        _streams("what_is_not_read_waits_with_who_sends_it"),
    ),
    (
        "a reader's turn",
        constant(incoming, "_IN_A_TURN", 1 << 40),
        _streams("a_reader_lets_others_have_the_loop_between_messages"),
    ),
    (
        "messages that nobody reads yet are not looked for",
        without(Incoming._find, "self._looking and ", ""),
        _streams("many_empty_messages_are_not_looked_for_before_they_are_read"),
    ),
    (
        "messages that are begun",
        without(UnfinishedMessages.progress, "self.bytes > _MOST and stream in self._sizes"),
        _streams("messages_that_are_begun_have_a_bound_and_go_on_in_turn"),
    ),
    (
        "a message that others wait for",
        without(UnfinishedMessages._give_up, "self._held"),
        _streams("a_message_that_others_wait_for_and_does_not_go_on_is_given_up"),
    ),
    (
        "a connection of gRPC that both sides have ended",
        without(Side.eof_received, "self._ended = True", "pass"),
        _streams("a_connection_of_grpc_that_is_closed_is_closed_on_both_sides"),
    ),
    (
        "what is sent to who refuses it",
        without(FrameStream.finish, "self._transport.write_eof()", "self._transport.close()"),
        _streams("a_refusal_reaches_who_is_still_sending"),
    ),
    (
        "a call has a request",
        without(stream_calls._unary, "request is None"),
        _streams("a_call_whose_client_says_nothing_is_no_request"),
    ),
]

TOPICS: dict[str, list[Row]] = {"streams": _STREAMS}
