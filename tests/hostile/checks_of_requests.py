"""The checks of what is asked for: each with what takes it out, and the attack that it keeps off."""

from __future__ import annotations

from kvstore.contexts import _checked, _mac, decode_context, decode_seen
from kvstore.hlc import HybridClock
from kvstore.lsm import limits
from kvstore.membership import follow
from kvstore.node import scan
from kvstore.node.replica_service import ReplicaService
from kvstore.node.scan_answers import ScanAnswers
from kvstore.node.scan_part import ScanPart
from kvstore.node.scans import Scans as PageMaker
from kvstore.node.scans import _Page
from kvstore.quorum import context_keys
from kvstore.quorum.admission import Admission
from kvstore.quorum.background.reap import Reaper
from kvstore.quorum.background.reap_rounds import ReapRounds
from kvstore.quorum.context_keys import ContextKeys
from kvstore.quorum.get import Gets
from kvstore.quorum.guard import Guard
from kvstore.quorum.hints import Hints
from kvstore.quorum.mint import Mint
from kvstore.quorum.put import Puts
from kvstore.quorum.replica import Replica, _check_not_swallowed
from kvstore.quorum.request import admit
from kvstore.quorum.rpc import Rpc
from kvstore.quorum.ttl import expiry
from kvstore.quorum.write import Writes
from kvstore.server.log import RateLimit
from kvstore.server.peer_service import PeerService
from kvstore.server.scans import Scans
from kvstore.wire import peer, session
from kvstore.wire.budget import FrameBudget
from kvstore.wire.codec import few
from tests.hostile.names_of_tests import (
    alone,
    budget,
    context,
    forged,
    invalid,
    isolation,
    size,
    step,
    stored,
    test_of,
)
from tests.hostile.plants import (
    Row,
    constant,
    without,
)

_CONTEXTS: list[Row] = [
    (
        "the signature",
        without(
            decode_context,
            "not keyring.verify(data[1:_SIGNED_AT], data[_SIGNED_AT:_PAYLOAD_AT], place, signed)",
        ),
        alone("a_claim_under_the_name_of_the_key_without_its_signature_is_refused"),
    ),
    (
        "the signature is of one key",
        without(_mac, "_LENGTH.pack(len(place)) + place + payload", "payload"),
        forged("of another key"),
    ),
    (
        "names no actor twice",
        without(_checked, "len(dict(context)) != len(context)"),
        alone("a_signed_context_that_names_an_actor_twice_is_refused"),
    ),
    (
        "a token of a session is whole, and of one key",
        without(decode_seen, "checksum != _checksum(payload, token)"),
        alone("the_token_of_another_key_is_refused"),
    ),
    (
        "no counter that this node has yet to reach",
        without(Mint.seen, "not all(map(self._actors.can_have_minted, (*seen.context, *seen.dots)))"),
        context("even_a_signed_counter_that_nobody_can_have_minted_is_not_taken_as_seen"),
    ),
    (
        "one under a key that may be on its way is not called forged",
        without(ContextKeys.verify, "self._heard >= self._others", "True"),
        context("a_context_under_a_key_that_may_be_on_its_way_can_be_tried_again"),
    ),
    (
        "one under a key that nobody has is called forged",
        without(ContextKeys.verify, "self._heard >= self._others"),
        forged("a key of its own"),
    ),
    (
        "keys that peers offer are so many at most",
        without(ContextKeys._take, "len(self._keyring.keys) < _MOST and ", ""),
        alone("a_peer_that_offers_keys_without_end_is_not_followed"),
    ),
    (
        "a key on the disk has its length",
        without(context_keys._stored, "len(value) == KEY_BYTES", "True"),
        stored("a key for contexts that is too short"),
    ),
]

_ORDER: list[Row] = [
    (
        "no reaping without a round before",
        without(
            ReapRounds.may_commit,
            "first is not None and now - first >= self._age",
            "first is None or now - first >= self._age",
        ),
        step("to_reap_without_a_round_before_deletes_nothing"),
    ),
    (
        "no reaping at once after it",
        without(ReapRounds.may_commit, "now - first >= self._age", "True"),
        step("to_reap_at_once_after_the_round_deletes_nothing_and_in_time_it_does"),
    ),
    (
        "no reaping for another than asked",
        without(
            ReapRounds.may_commit,
            "self._first.get(sender, {})",
            "{k: v for each in self._first.values() for k, v in each.items()}",
        ),
        step("to_reap_at_once_after_the_round_deletes_nothing_and_in_time_it_does"),
    ),
    (
        "a round that was denied counts no more",
        without(Reaper._confirm_to, "rounds.forget(sender, candidates[i])", "pass"),
        step("a_round_that_was_denied_meanwhile_or_was_before_a_restart_does_not_count"),
    ),
    (
        "who stood still confirms nothing",
        without(Reaper.confirm, "now.mono < self._silent_until"),
        step("a_round_that_was_denied_meanwhile_or_was_before_a_restart_does_not_count"),
    ),
    (
        "no live value is reaped",
        without(Reaper._agrees, " and self._dead(version, now.wall)", ""),
        test_of(
            "unit/test_quorum_reaping",
            "a_replica_does_not_confirm_while_something_speaks_against_it[n1-visible]",
        ),
    ),
    (
        "only exactly what is held is reaped",
        without(Reaper._agrees, "digest(version) == candidate.digest", "True"),
        test_of("unit/test_quorum_reaping", "a_replica_confirms_only_exactly_what_it_holds"),
    ),
    (
        "no reaping of what a hint would bring back",
        without(Reaper._agrees, "self._local.hints.holds(key) or ", ""),
        test_of(
            "unit/test_quorum_reaping",
            "a_replica_does_not_confirm_while_something_speaks_against_it[n1-hinted]",
        ),
    ),
    (
        "rounds are so many at most",
        without(ReapRounds.confirmed, "len(first) > _MOST"),
        alone("rounds_that_are_begun_without_end_take_bounded_memory"),
    ),
    (
        "a state of another cluster",
        without(follow._check_lasting, "new.cluster_id != old.cluster_id"),
        test_of("unit/test_node_state", "a_state_that_cannot_follow_is_refused[another cluster]"),
    ),
    (
        "a state with other partitions",
        without(follow._check_lasting, "new.ring.partitions != old.ring.partitions"),
        test_of("unit/test_node_state", "a_state_that_cannot_follow_is_refused[other partitions]"),
    ),
    (
        "a defect ends one thing",
        without(Guard.run, "self.report(error)", "raise"),
        isolation("a_failing_operation_does_not_keep_others_from_their_turn[on_gone]"),
    ),
    (
        "a defect in one read of a frame",
        without(ReplicaService.read, "self._guard.report(error)", "raise"),
        isolation("a_failing_message_does_not_take_the_others_of_its_frame_along"),
    ),
    (
        "a defect in one that waits for an answer to many",
        without(Rpc.on_answer_to_all, "self._guard.report(error)", "raise"),
        isolation("a_failing_read_does_not_keep_others_from_the_answer_that_they_share"),
    ),
    (
        "a defect in one write of a turn, before it is stored",
        without(Writes._refuse, "self._guard.report(error)", "raise error"),
        isolation("a_failing_write_does_not_take_the_others_of_its_turn_along[that cannot be made]"),
    ),
    (
        "a defect in one write of a turn, after it is stored",
        without(Writes._append_batch, "self._guard.report(error)", "raise"),
        isolation("a_failing_write_does_not_take_the_others_of_its_turn_along[that cannot be sent]"),
    ),
]

_TIMES: list[Row] = [
    (
        "a write that a wrong clock would swallow",
        without(
            _check_not_swallowed, "kept not in new.siblings and wall_time(kept.time) > wall + _FAR_AHEAD"
        ),
        step("a_write_that_a_wrong_clock_would_swallow_is_told_so"),
    ),
    (
        "a write at the last time that loses to it",
        without(Mint._sibling, "not wins(sibling, current.siblings)"),
        step("a_write_that_cannot_be_later_than_what_it_saw_is_refused_by_its_coordinator"),
    ),
    (
        "a clock is not carried along",
        without(HybridClock.tick, "seen > latest"),
        test_of("unit/test_quorum_lww", "a_clock_a_year_ahead_carries_no_other_clock_along"),
    ),
    (
        "time stops at its end",
        without(HybridClock.tick, "min(seen + 1, MAX_TIME)", "seen + 1"),
        alone("a_write_over_the_last_time_there_is_stays_within_bounds"),
    ),
    (
        "a clock before 1970 stamps nothing as of never",
        without(expiry, "max(wall + ttl * 1000, 1)", "wall + ttl * 1000"),
        alone("what_expires_does_so_whatever_the_clock_says"),
    ),
]

_SIZES: list[Row] = [
    ("a bucket's name", without(admit, "limits.check_bucket(call.bucket)", "pass"), invalid("call0-bucket")),
    ("a client's key", without(admit, "limits.check_key(call.key)", "pass"), invalid("call3-key")),
    (
        "how many replicas to wait for",
        without(admit, "not (0 <= r <= n and 0 <= w <= n)"),
        test_of("unit/test_quorum_requests", "more_replicas_than_there_are_cannot_be_waited_for"),
    ),
    (
        "a value",
        without(Puts.put, "self._limits.check_value(call.value)", "pass"),
        size("a_value_is_bounded_by_itself[1001]"),
    ),
    (
        "a content type",
        without(Puts.put, "self._limits.check_content_type(call.content_type)", "pass"),
        alone("a_content_type_is_bounded_where_no_other_node_looks_at_it"),
    ),
    (
        "siblings of a key",
        without(Mint.mint, "len(current.siblings) >= self._limits.siblings"),
        test_of(
            "unit/test_quorum_requests", "the_hundred_and_first_sibling_is_refused_and_a_context_still_helps"
        ),
    ),
    (
        "bytes of a key",
        without(Mint._within_limits, "len(encoded) > most and len(encoded) > size"),
        size("the_bound_of_a_key_is_exact[1]"),
    ),
    (
        "a write that shrinks a key is never refused",
        without(Mint._within_limits, " and len(encoded) > size", ""),
        size("what_both_sides_of_a_split_have_added_is_kept_although_it_is_above_the_bound_of_one"),
    ),
    (
        "what no disk takes is not written",
        without(Replica.prepare, "len(result) > self.largest"),
        size("what_no_disk_can_take_together_is_still_readable_resolvable_and_deletable[put]"),
    ),
    (
        "a hint that no disk takes",
        without(Hints.plan, "len(new) > self._replica.largest"),
        alone("a_hint_that_no_disk_takes_is_refused_with_a_type"),
    ),
    (
        "hints for one target",
        without(Hints.plan, "not old and not self._room(target, len(new))"),
        test_of("unit/test_quorum_hints", "a_hint_over_a_cap_is_counted_and_its_partition_repaired"),
    ),
    (
        "a reply to a client",
        without(Gets._found, "len(result) > MAX_REPLY_BYTES"),
        alone("a_version_that_no_client_takes_is_refused_with_a_type"),
    ),
    (
        "what the engine takes",
        without(limits._check_size, "size > most"),
        test_of(
            "unit/test_lsm_limits", "a_value_over_the_limit_is_refused_and_nothing_of_its_batch_is_written"
        ),
    ),
]

_WORK: list[Row] = [
    (
        "items of a long frame, before it is parsed",
        without(FrameBudget.check, "left < 0"),
        budget("a_long_frame_is_refused_without_being_parsed"),
    ),
    (
        "calls of a frame",
        constant(session, "CALLS_OF_A_SESSION", 1 << 40),
        budget("a_session_frame_of_too_many_items_is_refused_before_any_is_begun[calls_of_a_short_frame]"),
    ),
    (
        "messages of a frame",
        constant(peer, "_MOST", {}),
        budget("a_frame_of_a_peer_with_too_many_messages_is_refused[pings]"),
    ),
    (
        "items of a list",
        without(few, 'check_items(len(items), ITEMS_OF_A_LIST, "items of one list")', "pass"),
        alone("a_list_of_too_many_items_is_refused_although_its_frame_is_small"),
    ),
    (
        "a field that ends within the frame",
        without(
            FrameBudget.check, 'raise InvalidRequest("frame", "ends within a field") from None', "return"
        ),
        budget("a_long_frame_that_is_none_is_refused"),
    ),
    (
        "requests under way",
        without(Admission._reason, "self.unanswered >= self._number_bound"),
        test_of("unit/test_quorum_overload", "requests_are_bounded_in_number_and_in_bytes"),
    ),
    (
        "bytes under way",
        without(Admission._reason, "self.bytes >= self._bytes_bound"),
        test_of("unit/test_quorum_overload", "requests_are_bounded_in_number_and_in_bytes"),
    ),
    (
        "scans that wait",
        without(Scans.page, "self._waiting >= _MOST"),
        budget("scans_take_bounded_steps_and_wait_for_each_other"),
    ),
    (
        "entries of a page of a scan",
        without(scan.Step.is_over, "self._entries <= 0"),
        budget("scans_take_bounded_steps_and_wait_for_each_other"),
    ),
    (
        "keys of a page of a scan",
        without(
            PageMaker._admit, "min(scan.limit or Limits.scan_keys, Limits.scan_keys)", "scan.limit or 1000"
        ),
        test_of("unit/test_quorum_scan", "a_page_has_at_most_a_thousand_keys_however_many_are_asked_for"),
    ),
    (
        "the values of a page of a scan",
        without(_Page.add, "size > self._room"),
        test_of(
            "unit/test_quorum_scan",
            "a_page_has_no_more_values_than_it_may_and_names_a_key_that_has_more_by_itself",
        ),
    ),
    (
        "the keyspace of the cursor of a scan",
        without(scan.partition_at, "not first <= cursor < end"),
        test_of("unit/test_node_scan", "a_cursor_that_no_page_can_have_had_is_refused"),
    ),
    (
        "the length of the cursor of a scan",
        without(scan.partition_at, "not _NAME_AT <= len(cursor) <= _LONGEST_CURSOR"),
        test_of("unit/test_node_scan", "a_cursor_that_no_page_can_have_had_is_refused"),
    ),
    (
        "the end of a scan is a place like a cursor",
        without(PageMaker._admit, 'partition_at(scan.until, state.ring.partitions, "until")', "None"),
        test_of("unit/test_quorum_scan", "a_request_that_makes_no_sense_is_refused"),
    ),
    (
        "the end of a scan is behind its beginning",
        without(PageMaker._admit, "scan.until and scan.until <= scan.cursor"),
        test_of("unit/test_quorum_scan", "a_request_that_makes_no_sense_is_refused"),
    ),
    (
        "what a replica is asked for a scan stays in its partition",
        without(ScanAnswers.on_scan_items, "max(asked.after, first)", "asked.after"),
        test_of("unit/test_quorum_scan", "a_question_reads_nothing_outside_of_its_partition"),
    ),
    (
        "an answer to a scan is about what was asked",
        without(ScanPart._asked_for, "self._wanted.has(key)", "True"),
        test_of(
            "unit/test_quorum_scan", "an_answer_that_would_make_the_scan_endless_or_show_other_keys_is_none"
        ),
    ),
    (
        "an answer to a scan goes on",
        without(ScanPart._makes_sense, "self._start < answer.reached < self.end", "True"),
        test_of(
            "unit/test_quorum_scan", "an_answer_that_would_make_the_scan_endless_or_show_other_keys_is_none"
        ),
    ),
    (
        "lines in the log for who is refused again and again",
        without(PeerService._log_once, "trouble not in self._told:", "True:"),
        test_of("unit/test_server_links", "a_stranger_is_told_why_in_one_line"),
    ),
    (
        "lines of one kind in the log",
        without(RateLimit.filter, "return lines < _MOST", "return True"),
        test_of(
            "unit/test_server_log",
            "of_one_kind_there_are_twenty_lines_a_minute_and_then_how_many_were_left_out",
        ),
    ),
]

TOPICS = {
    "contexts": _CONTEXTS,
    "order of steps": _ORDER,
    "clocks": _TIMES,
    "sizes": _SIZES,
    "work": _WORK,
}
