"""The checker by itself: every kind of violation is found in a history made by hand, and nothing else is."""

from __future__ import annotations

import pytest

from kvstore.config import BucketSettings, Conflict, QuorumMode
from kvstore.lsm import Engine
from kvstore.protocol.client import Stored
from kvstore.sim.checker import Checker, Place, Violation
from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.disks import check_disks
from kvstore.sim.history import History, Read, Result, Write
from kvstore.versions import (
    BucketName,
    Dot,
    EncodedVersion,
    Sibling,
    UserKey,
    Version,
    decode_version,
    encode_version,
)
from tests.plain import Put, data_key, token

BUCKETS = {
    "strict": BucketSettings("strict"),
    "weak": BucketSettings("weak", r=1, w=1),
    "sloppy": BucketSettings("sloppy", quorum=QuorumMode.SLOPPY),
    "lww": BucketSettings("lww", conflict=Conflict.LWW),
}
KEY = UserKey(b"k")


class Story:
    """A history in the making; each event takes half a second, but for a write that says when it ended."""

    def __init__(self, bucket: str = "strict") -> None:
        self.bucket = BucketName(bucket)
        self.history = History()

    def put(
        self,
        at: float,
        value: bytes | None,
        *seen: bytes,
        result: Result = Result.OK,
        ended: float | None = None,
        client: str = "Ann",
        key: UserKey = KEY,
    ) -> Story:
        end = at + 0.5 if ended is None else ended
        self.history.writes.append(Write(client, self.bucket, key, value, frozenset(seen), at, end, result))
        return self

    def delete(self, at: float, *seen: bytes, result: Result = Result.OK) -> Story:
        return self.put(at, None, *seen, result=result)

    def read(self, at: float, *values: bytes, client: str = "Bob") -> Story:
        self.history.reads.append(Read(client, self.bucket, KEY, frozenset(values), at, at + 0.5))
        return self

    def ends_with(self, *values: bytes) -> int:
        final: dict[Place, frozenset[bytes]] = {(self.bucket, KEY): frozenset(values)}
        return Checker(self.history, BUCKETS).check(final)


def violated(story: Story, *final: bytes) -> str:
    with pytest.raises(Violation) as caught:
        story.ends_with(*final)
    return str(caught.value)


# what is found


def test_an_acknowledged_value_that_is_gone_in_the_end() -> None:
    assert "acknowledged b'1' of strict/b'k' is lost" in violated(Story().put(1, b"1"))


def test_an_acknowledged_value_that_only_an_unseeing_write_could_have_replaced() -> None:
    assert "b'1' of strict/b'k' is lost" in violated(Story().put(1, b"1").put(2, b"2"), b"2")


def test_an_acknowledged_value_whose_replacement_was_not_applied() -> None:
    story = Story().put(1, b"1").put(2, b"2", b"1", result=Result.NOT_APPLIED)
    assert "b'1' of strict/b'k' is lost" in violated(story)


def test_a_sloppy_value_that_is_gone_in_the_end() -> None:
    assert "is lost" in violated(Story("sloppy").put(1, b"1"))


def test_a_value_that_nobody_wrote() -> None:
    assert "never written there" in violated(Story().read(1, b"?"))
    assert "never written there" in violated(Story(), b"?")


def test_a_value_of_another_key() -> None:
    assert "never written there" in violated(Story().put(1, b"1", key=UserKey(b"other")).read(2, b"1"))


def test_a_value_that_was_said_to_be_not_applied() -> None:
    story = Story("weak").put(1, b"1", result=Result.NOT_APPLIED)
    assert "said to be not applied" in violated(story, b"1")


def test_a_value_that_is_read_before_it_is_written() -> None:
    assert "before it was written" in violated(Story().read(1, b"1").put(3, b"1"), b"1")


def test_a_strict_read_that_misses_what_another_client_was_told() -> None:
    assert violated(Story().put(1, b"1").read(2), b"1").startswith("R + W > N: Bob read")


def test_a_client_that_does_not_read_its_own_write() -> None:
    story = Story().put(1, b"1", client="Bob").read(2, client="Bob")
    assert violated(story, b"1").startswith("read your writes: Bob read")


def test_a_client_that_reads_back_in_time() -> None:
    story = Story().put(1, b"1", result=Result.UNKNOWN, ended=99).read(2, b"1").read(3)
    assert violated(story, b"1").startswith("monotonic reads: Bob read")


def test_a_read_that_goes_behind_the_read_of_another_client() -> None:
    story = Story().put(1, b"1", result=Result.UNKNOWN, ended=99).read(2, b"1").read(3, client="Cid")
    assert violated(story, b"1").startswith("R + W > N: Cid read")


def test_a_write_that_follows_a_read_and_loses_what_that_did_not_see() -> None:
    story = Story().put(1, b"1").read(2, b"1").put(3, b"2").put(4, b"3", b"1").read(5, b"3")
    assert "it lost b'2'" in violated(story, b"3")


def test_a_deleted_value_that_is_back() -> None:
    assert "b'1' of strict/b'k' is back" in violated(Story().put(1, b"1").delete(2, b"1"), b"1")
    assert "is back" in violated(Story().put(1, b"1").delete(2, b"1").read(3, b"1"))


def test_a_replaced_value_that_is_back_beside_the_new_one() -> None:
    assert "is back" in violated(Story().put(1, b"1").put(2, b"2", b"1"), b"1", b"2")


def test_an_lww_key_with_two_values_or_with_none() -> None:
    assert "2 values" in violated(Story("lww").put(1, b"1").put(2, b"2"), b"1", b"2")
    assert "is lost" in violated(Story("lww").put(1, b"1"))


# what is not


def test_siblings_replacements_and_deletes_that_saw_what_they_took_are_fine() -> None:
    assert Story().put(1, b"1").put(2, b"2").read(3, b"1", b"2").ends_with(b"1", b"2") > 0
    assert Story().put(1, b"1").put(2, b"2", b"1").read(3, b"2").ends_with(b"2") > 0
    assert Story().put(1, b"1").delete(2, b"1").read(3).ends_with() > 0


def test_a_write_of_unknown_outcome_may_be_there_may_not_and_may_come_late() -> None:
    story = Story().put(1, b"1").put(2, b"2", b"1", result=Result.UNKNOWN, ended=99)
    for left in (b"1", b"2"):
        assert story.ends_with(left) > 0
    assert story.read(3, b"1").read(4, b"2").ends_with(b"2") > 0


def test_a_delete_of_unknown_outcome_may_have_happened() -> None:
    assert Story().put(1, b"1").delete(2, b"1", result=Result.UNKNOWN).ends_with() > 0


def test_a_read_at_the_same_time_may_miss_a_write() -> None:
    assert Story().put(1, b"1", ended=3).read(2).ends_with(b"1") > 0


@pytest.mark.parametrize("bucket", ["weak", "sloppy"])
def test_buckets_that_promise_less_may_read_what_is_old(bucket: str) -> None:
    assert Story(bucket).put(1, b"1").read(2).ends_with(b"1") > 0


# the disks


def stored() -> tuple[SimulatedCluster, History, bytes, Version]:
    """A cluster that holds one value everywhere, and its version."""
    cluster = SimulatedCluster(1)
    cluster.start()
    cluster.run(1.0)
    assert isinstance(cluster.call("n1", Put("strict", KEY, b"1", w=3)), Stored)
    key = data_key(token("strict", KEY), "strict", KEY)
    return (
        cluster,
        Story().put(1, b"1").history,
        key,
        decode_version(EncodedVersion(cluster.hosts["n2"].engine.get(key) or b"")),
    )


def refused(cluster: SimulatedCluster, history: History) -> str:
    with pytest.raises(Violation) as caught:
        check_disks(cluster, history)
    return str(caught.value)


def test_equal_disks_are_fine() -> None:
    cluster, history, _, _ = stored()
    assert check_disks(cluster, history) == 3


def test_a_dot_that_names_two_writes() -> None:
    cluster, history, key, version = stored()
    (sibling,) = version.siblings
    history.writes.append(Write("Bob", BucketName("strict"), KEY, b"2", frozenset(), 1.0, 2.0, Result.OK))
    other = Version(version.context, (Sibling(sibling.dot, b"2", sibling.time),))
    Engine.write(cluster.hosts["n2"].engine, [(key, encode_version(other))])  # its watcher would object
    assert "names two writes" in refused(cluster, history)


def test_a_value_on_a_disk_that_was_never_written_or_not_applied() -> None:
    cluster, history, _, _ = stored()
    assert "never written" in refused(cluster, History())
    history.writes[0].result = Result.NOT_APPLIED
    assert "not applied" in refused(cluster, history)


def test_a_version_whose_context_does_not_cover_its_sibling() -> None:
    cluster, history, key, version = stored()
    other = encode_version(Version((Dot("other", 1),), version.siblings))
    Engine.write(cluster.hosts["n2"].engine, [(key, other)])
    assert "does not cover" in refused(cluster, history)
