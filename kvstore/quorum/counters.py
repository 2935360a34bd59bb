"""What a node has done since it started: the one place where a counter is declared.

From here status, kvctl, the simulator's totals and the table in docs/kvctl.md take it by its name. Plain
integers, so that counting costs next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass
class RequestCounters:
    """Requests of clients, where they arrive."""

    gets: int = 0
    """Reads of a key, those passed on to another node included."""
    puts: int = 0
    """Writes of a key, likewise."""
    deletes: int = 0
    """Deletes of a key, likewise."""
    errors: int = 0
    """Requests that were answered with an error."""
    forwards: int = 0
    """Requests that were passed on to another node."""
    overloaded: int = 0
    """Requests that were refused because of load; also in `errors`."""
    expired: int = 0
    """Requests, and questions of other nodes, that came when their asker had given up: not carried out."""
    cancelled: int = 0
    """Requests whose client left before they were answered."""
    lww_overwritten: int = 0
    """Values in `lww` buckets that writes coordinated here replaced unseen."""
    lww_discarded: int = 0
    """Values in `lww` buckets that were dropped here for a later one that had not seen them."""
    clock_ahead: int = 0
    """Writes over a value whose time was too far ahead of this node's clock."""
    syncs: int = 0
    """Syncs of the log."""
    defects: int = 0
    """Exceptions that nobody expected; each ended what it happened in, and nothing else."""


@dataclass
class ReadCounters:
    """Reads that this node has coordinated."""

    read_repairs: int = 0
    """Replicas that a read found stale and brought up to date."""
    hedges: int = 0
    """Replicas asked in addition because another one was late."""
    hedges_won: int = 0
    """Of these, answers that a reply was made of before the late one came."""
    hedges_refused: int = 0
    """Hedges left out because the budget of extra reads was used up."""
    read_trials: int = 0
    """Slow replicas asked in addition, to notice when they are slow no more."""
    wide_reads: int = 0
    """Reads of sessions that asked all replicas, as the first R had not seen what the session has."""


@dataclass
class HintCounters:
    """Hints that this node keeps for others."""

    hints_stored: int = 0
    """Hints stored, one that replaces another included."""
    hints_delivered: int = 0
    """Hints that their target, or a primary in its place, has taken."""
    hints_rerouted: int = 0
    """Of those delivered: to the primaries, as their target is none any more."""
    hints_dropped: int = 0
    """Hints dropped for one of the next three reasons."""
    hints_overflowed: int = 0
    """No room for one more, by count or by bytes."""
    hints_expired: int = 0
    """Kept for too long."""
    hints_unwritable: int = 0
    """The disk did not take them."""
    hints_unreadable: int = 0
    """Hints on this node's disk that cannot be read, or are for nobody: dropped."""
    hinted_early: int = 0
    """Acknowledged writes whose slow replica got a hint before its patience was over, to free memory."""


@dataclass
class RepairCounters:
    """Anti-entropy, reaping and the recovery of damaged data."""

    repairs: int = 0
    """Versions that anti-entropy brought here, or from here to others."""
    repair_bytes: int = 0
    """Bytes of hashes, keys and versions that anti-entropy has sent."""
    reaped: int = 0
    """Tombstones and expired versions deleted here."""
    trees_distrusted: int = 0
    """Merkle trees that could not follow a write, and were built anew."""
    quarantines: int = 0
    """Damaged blocks and tables that were fenced off."""
    refetched: int = 0
    """Versions that came back from other replicas for them."""
    unreadable: int = 0
    """Versions and keys on this node's disk that were passed over, since no other node would take them."""
    oversized: int = 0
    """Versions of others that were not taken: with what is here they would be larger than any may be."""


@dataclass
class TrafficCounters:
    """Frames and messages on the node's connections; the server counts them, the core leaves them at 0."""

    frames_sent: int = 0
    """Frames sent to other nodes."""
    messages_sent: int = 0
    """Messages in these."""
    messages_dropped: int = 0
    """Messages to nodes that were not connected, or too slow to read."""
    frames_received: int = 0
    """Frames of other nodes."""
    messages_received: int = 0
    """Messages in these."""
    frames_refused: int = 0
    """Frames of other nodes of which something was wrong: nothing of them was carried out."""
    session_frames_received: int = 0
    """Frames of clients' sessions."""
    session_calls_received: int = 0
    """Calls in these."""


@dataclass
class Counters(RequestCounters, ReadCounters, HintCounters, RepairCounters, TrafficCounters):
    """All counters of one node, each a number of events since its process started."""


TOPICS = {
    topic: tuple(field.name for field in fields(kind))
    for topic, kind in (
        ("requests", RequestCounters),
        ("reads", ReadCounters),
        ("hints", HintCounters),
        ("repair", RepairCounters),
        ("traffic", TrafficCounters),
    )
}
"""The names of the counters by topic, in the order in which they are shown."""
