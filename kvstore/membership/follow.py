"""What may follow on a cluster state: asked of what is proposed, accepted and taken up."""

from __future__ import annotations

from kvstore.errors import ConfigError, InvalidRequest
from kvstore.protocol.cluster_state import ClusterState
from kvstore.protocol.move import Move, Step
from kvstore.ring.check import check_state
from kvstore.ring.since import replica_set, since_after


def check_follows(old: ClusterState, new: ClusterState) -> None:
    """Raise InvalidRequest unless a node at `old` may take `new` up, which others have decided on.

    It may have missed epochs: only of the very next one it can tell whether that is one step from here.
    """
    if new.epoch == old.epoch + 1:
        check_next(old, new)
        return
    _check_lasting(old, new)
    if new.epoch <= old.epoch:
        raise InvalidRequest("state", f"epoch {new.epoch} does not follow on epoch {old.epoch}")


def check_next(old: ClusterState, new: ClusterState) -> None:
    """Raise InvalidRequest unless `new` may be the very next state: every partition one step at most."""
    if new.epoch != old.epoch + 1:
        raise InvalidRequest("state", f"epoch {new.epoch} is not the next of epoch {old.epoch}")
    _check_lasting(old, new)
    for name in sorted({bucket.name for bucket in (*old.buckets, *new.buckets)}):
        was, now = old.bucket(name), new.bucket(name)
        if (was.n, was.conflict) != (now.n, now.conflict):
            raise InvalidRequest("state", f"bucket {name}: n and conflict cannot change")
    if (old.moves or new.moves) and old.buckets != new.buckets:
        raise InvalidRequest("state", "settings of buckets cannot change while partitions move")
    for partition in range(old.ring.partitions):
        if replica_set(old, partition) != replica_set(new, partition):
            _check_step(old, new, partition)
    if new.since != since_after(old, new):
        raise InvalidRequest("state", "does not say which replicas have changed")


def _check_lasting(old: ClusterState, new: ClusterState) -> None:
    try:
        check_state(new)
    except ConfigError as error:
        raise InvalidRequest("state", str(error)) from error
    if new.cluster_id != old.cluster_id:
        raise InvalidRequest("state", f"is of cluster {new.cluster_id!r}")
    if new.ring.partitions != old.ring.partitions:
        raise InvalidRequest("state", f"has {new.ring.partitions} partitions, which cannot change")
    if new.replicas != old.replicas:
        raise InvalidRequest("state", f"has {new.replicas} replicas of a key, which cannot change")


def _check_step(old: ClusterState, new: ClusterState, partition: int) -> None:
    was, now = old.move(partition), new.move(partition)
    before, after = old.ring.replica_lists[partition], new.ring.replica_lists[partition]
    if was is None:
        if old.moves:
            raise InvalidRequest("state", "a change is under way: the next one begins when it is over")
        good = now is not None and now.old == before and now.step is Step.WRITE_BOTH_READ_OLD
    elif was.step is Step.WRITE_BOTH_READ_NEW:
        good = now is None and after == was.new
    elif now is None:
        good = after == was.old and not was.emptied
    else:
        good = now == Move(partition, was.old, was.new, Step.WRITE_BOTH_READ_NEW, was.emptied)
    if not good:
        raise InvalidRequest("state", f"partition {partition} is not one step from where it was")
