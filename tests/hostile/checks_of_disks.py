"""The checks of what is read from disks, and of what clients are told: each with what takes it out."""

from __future__ import annotations

from kvstore.client.core.calls import Calls
from kvstore.client.core.client import ClientCore
from kvstore.client.transfer import lines
from kvstore.kvctl import output
from kvstore.lsm import block
from kvstore.lsm.manifest import current_manifest
from kvstore.membership import follow
from kvstore.node import replica_service, scan
from kvstore.quorum import hints
from kvstore.quorum.background import range_items
from kvstore.quorum.hints import Hints
from kvstore.ring import check
from kvstore.server import data_directory, identity
from kvstore.store import disk
from tests.hostile.names_of_tests import (
    alone,
    directory,
    stored,
    test_of,
)
from tests.hostile.plants import (
    Row,
    manifest_unbounded,
    without,
)

_STATE = test_of("unit/test_cluster_state", "what_can_be_no_cluster_state")

_DISKS: list[Row] = [
    (
        "a hint is one",
        without(Hints.recount, "_is_hint(key, version)", "True"),
        stored("a hint with a garbage version"),
    ),
    (
        "a hint is of a key",
        without(hints._is_hint, "check_data_key(data_key, _LIMITS)", "pass"),
        stored("a hint for a garbage key"),
    ),
    (
        "a hint is for a name",
        without(hints._is_hint, "NAME.fullmatch(target) is not None", "True"),
        stored("a hint for a name that is none"),
    ),
    (
        "a scan lists keys alone",
        without(scan._is_key, "check_data_key(key, _LIMITS)", "pass"),
        stored("a key with the token of another"),
    ),
    (
        "what others would refuse is not sent",
        without(range_items.can_be_sent, "check_version(version)", "pass"),
        stored("a version with a negative time"),
    ),
    (
        "nor in reply to a read",
        without(replica_service._sendable, "check_version(version)", "pass"),
        alone("what_others_would_refuse_is_not_sent_to_who_asks_for_it"),
    ),
    (
        "numbers of a manifest",
        manifest_unbounded,
        test_of(
            "hostile/test_crafted_manifests",
            "every_field_of_a_manifest_at_its_ends_is_taken_or_refused_with_a_type",
        ),
    ),
    (
        "what CURRENT names is a manifest",
        without(current_manifest, 'not name.startswith("MANIFEST-") or ', ""),
        test_of("unit/test_lsm_manifest", "current_must_name_a_manifest_that_is_there"),
    ),
    (
        "what CURRENT names is there",
        without(current_manifest, " or name not in names", ""),
        test_of("unit/test_lsm_manifest", "current_must_name_a_manifest_that_is_there"),
    ),
    (
        "a block claims no more than its bytes can stand for",
        without(block._most_from, "min(MOST_COMPRESSED, 255 * compressed)", "MOST_COMPRESSED"),
        test_of("unit/test_lsm_limits", "a_block_that_claims_more_than_its_bytes_can_stand_for_is_refused"),
    ),
    (
        "replica lists of a stored state",
        without(check._check_list, "len(set(nodes)) != len(nodes)"),
        test_of("unit/test_node_state", "the_bytes_of_a_state_are_read_back_and_no_others"),
    ),
    (
        "the epoch of a state",
        without(check.check_state, "not FIRST_EPOCH <= state.epoch <= MAX_EPOCH"),
        _STATE,
    ),
    (
        "the length of replica lists",
        without(check._check_list, "len(nodes) != replicas or not nodes"),
        _STATE,
    ),
    (
        "moves are of the ring",
        without(check._check_move, "not 0 <= move.partition < state.ring.partitions"),
        _STATE,
    ),
    (
        "what moves is read by its list",
        without(check._check_move, "state.ring.replica_lists[move.partition] != move.read"),
        _STATE,
    ),
    (
        "what is emptied is a replica",
        without(check._check_move, "not set(move.old).issuperset(move.emptied)"),
        _STATE,
    ),
    (
        "what moves does not stay",
        without(check._check_move, "move.old == move.new and not move.emptied"),
        _STATE,
    ),
    ("changes are of the past", without(check._check_since, "not FIRST_EPOCH <= changed <= epoch"), _STATE),
    ("a state has one form", without(check._in_order, "found != sorted(set(found))"), _STATE),
    (
        "a state is one step from the last",
        without(follow._check_step, "not good"),
        test_of("unit/test_cluster_state", "what_may_not_follow"),
    ),
    (
        "a state says what has changed",
        without(follow.check_next, "new.since != since_after(old, new)"),
        test_of("unit/test_cluster_state", "what_may_not_follow"),
    ),
    (
        "a data directory of another node",
        without(data_directory._check, "(owner, cluster) != (given.node, given.cluster_id)"),
        directory("anothers_is_refused"),
    ),
    (
        "a data directory of other settings",
        without(data_directory._check, "changed := difference(stored, given)", 'changed := ""'),
        directory("what_was_stored_with_other_settings_is_refused"),
    ),
    (
        "a data directory of somebody else's files",
        without(data_directory.claim, "any(entry.name != _UNFINISHED for entry in directory.iterdir())"),
        directory("a_directory_with_other_things_in_it"),
    ),
    (
        "the size of IDENTITY",
        without(identity._decode, "len(data) > _MOST_BYTES"),
        alone("an_identity_that_is_too_large_is_not_read"),
    ),
    (
        "IDENTITY.new of a start that crashed",
        without(data_directory._write, "temporary.unlink(missing_ok=True)", "pass"),
        directory("a_link_under_the_name_of_the_unfinished_file_leads_nowhere"),
    ),
    (
        "IDENTITY.new as a link",
        without(data_directory._write, " | os.O_EXCL | os.O_NOFOLLOW", ""),
        directory("a_link_that_is_made_in_that_moment_is_not_followed"),
    ),
    (
        "the mode of IDENTITY",
        without(data_directory._write, "0o600", "0o644"),
        directory("what_is_made_is_private_and_on_the_disk"),
    ),
    (
        "the mode of the data directory",
        without(data_directory._make, "mode=0o700", "mode=0o755"),
        directory("what_is_made_is_private_and_on_the_disk"),
    ),
    (
        "the mode of what is stored",
        without(disk._open, "0o600", "0o644"),
        alone("what_the_engine_makes_is_for_its_owner_alone"),
    ),
]

_CLIENTS: list[Row] = [
    (
        "a reply fits its request",
        without(Calls.answer, "isinstance(reply, call.request.reply)", "True"),
        test_of("unit/test_client_calls", "a_reply_of_another_kind_is_an_error_of_the_node"),
    ),
    (
        "a reply to what has not been sent",
        without(Calls.answer, "not call.sent"),
        alone("a_reply_to_a_call_that_was_not_sent_ends_the_connection"),
    ),
    (
        "a reply to what nobody has asked",
        without(Calls.answer, "call is None"),
        alone("a_reply_to_what_nobody_asked_is_dropped"),
    ),
    (
        "a node of another cluster",
        without(ClientCore.on_connected, "state.cluster_id != mine.cluster_id"),
        test_of("unit/test_client_calls", "a_node_of_another_cluster_is_not_used"),
    ),
    (
        "partitions of a cluster state",
        without(check.check_lists, "not 1 <= len(lists) <= MAX_PARTITIONS or len(lists) & (len(lists) - 1)"),
        _STATE,
    ),
    (
        "what would steer a terminal",
        without(output.harmless, '_STEERING.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text)', "text"),
        test_of("unit/test_kvctl_output", "what_would_steer_a_terminal_is_an_escape_of_json"),
    ),
    (
        "an expiry in an export",
        without(lines._record, "any(not 0 <= held.expiry <= MAX_EXPIRY for held in siblings)"),
        test_of("unit/test_client_transfer", "a_line_of_an_export_that_cannot_be_imported_says_why"),
    ),
]

TOPICS = {
    "disks": _DISKS,
    "replies to clients": _CLIENTS,
}
