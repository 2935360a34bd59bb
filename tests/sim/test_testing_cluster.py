"""kvstore.testing: the client's calls on a simulated cluster, its faults, and the page that describes it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kvstore
from kvstore.testing import BucketSettings, Cluster, NotSettled

DOCUMENT = (Path(__file__).parents[2] / "docs" / "testing-your-application.md").read_text()


@pytest.mark.kvcluster(nodes=5)
def test_the_marker_says_what_cluster_the_fixture_gives(kvcluster: Cluster) -> None:
    assert kvcluster.nodes == ("n1", "n2", "n3", "n4", "n5")


def test_every_call_of_the_client_works(kvcluster: Cluster) -> None:
    with kvcluster.connect() as db:
        carts = db.bucket("carts", resolver=lambda siblings: b"+".join(sorted(s.value for s in siblings)))
        assert carts.put("a", "one").siblings == 1
        got = carts.get("a", explain=True)
        assert (got.value, got.explain and len(got.explain.answered)) == (b"one", 2)
        assert carts.put("a", "two", blind=True).siblings == 2
        assert carts.update("a", lambda value: (value or b"") + b"!").siblings == 1
        assert carts.get(b"a").value == b"one+two!"
        assert set(carts.put_many({f"k{i}": str(i) for i in range(50)})) == {f"k{i}" for i in range(50)}
        assert carts.get_many(["k7", "none"])["k7"].value == b"7"
        assert carts.delete("k7").siblings == 0
        assert not carts.get("k7")
        assert sorted(carts.scan_keys()) == sorted([b"a", *(b"k%d" % i for i in range(50) if i != 7)])
        assert {member.node for member in db.ring().members} == set(kvcluster.nodes)
        assert not any(isinstance(answer, kvstore.KVError) for answer in db.status().values())
    with pytest.raises(kvstore.ClientClosed):
        carts.get("a")


def test_wrong_arguments_are_refused_as_by_the_real_client(kvcluster: Cluster) -> None:
    with pytest.raises(kvstore.InvalidRequest):
        kvcluster.connect().bucket("carts").put("", "v")
    with pytest.raises(kvstore.InvalidRequest):
        kvcluster.connect().bucket("carts").get("k", r=4)
    with pytest.raises(ValueError, match="no node 'n9'"):
        kvcluster.split("n9")


def test_a_read_is_tried_at_another_replica_when_the_first_stands_still(kvcluster: Cluster) -> None:
    carts = kvcluster.connect().bucket("carts")
    carts.put("a", "one", w=3)
    kvcluster.pause(kvcluster.replicas("carts", "a")[0], 60.0)
    began = kvcluster.now
    assert carts.get("a", timeout=4.0).value == b"one"
    assert 2.0 <= kvcluster.now - began < 4.0


def test_a_write_whose_node_dies_has_an_unknown_outcome_and_is_not_repeated(kvcluster: Cluster) -> None:
    carts = kvcluster.connect("n1").bucket("carts")
    kvcluster.pause("n1", 1.0)
    kvcluster._cluster.scheduler.after(0.5, lambda: kvcluster.kill("n1"))
    with pytest.raises(kvstore.NoNodeAvailable) as caught:
        carts.put("a", "one")
    assert caught.value.outcome is kvstore.Outcome.UNKNOWN


def test_a_client_that_reaches_nobody_waits_for_its_timeout(kvcluster: Cluster) -> None:
    carts = kvcluster.connect("n1").bucket("carts")
    kvcluster.kill("n1")
    began = kvcluster.now
    with pytest.raises(kvstore.NoNodeAvailable) as caught:
        carts.put("a", "one", timeout=3.0)
    assert caught.value.outcome is kvstore.Outcome.NOT_APPLIED
    assert kvcluster.now - began == pytest.approx(3.0)
    kvcluster.restart("n1")
    kvcluster.settle()
    assert carts.put("a", "one").siblings == 1


def test_of_many_keys_those_without_a_quorum_fail_alone() -> None:
    cluster = Cluster(5, seed=2)
    carts = cluster.connect().bucket("carts")
    cluster.kill("n1", "n2")
    cluster.advance(20)
    with pytest.raises(kvstore.PartialFailure) as caught:
        carts.put_many({f"k{i}": "v" for i in range(30)})
    assert caught.value.succeeded
    assert all(isinstance(error, kvstore.Unavailable) for error in caught.value.failed.values())
    lost = {"n1", "n2"}
    assert all(len(lost & set(cluster.replicas("carts", key))) == 2 for key in caught.value.failed)


def test_faults_do_what_they_say() -> None:
    cluster = Cluster(3, buckets=[BucketSettings("few", n=1, r=1, w=1), "lossy:conflict=lww"])
    db = cluster.connect()
    cluster.jump_clock("n1", 3600.0)
    assert db.bucket("lossy").put("a", "1").siblings == 1
    cluster.fill_disk("n1")
    with pytest.raises(kvstore.KVError):
        cluster.connect("n1").bucket("carts").put("b", "1", timeout=0.5)
    with pytest.raises(kvstore.StorageFull):
        cluster.connect("n1").bucket("carts").put("b", "1", timeout=0.5)
    cluster.fill_disk("n1", full=False)
    cluster.advance(2.0)
    cluster.split("n2", one_way=True)
    cluster.kill("n3", power_loss=True)
    assert not cluster.running("n3")
    with pytest.raises(NotSettled, match="n3 is down"):
        cluster.settle(timeout=20.0)
    cluster.heal()
    cluster.restart("n3")
    cluster.settle()
    assert cluster.connect("n3").bucket("few").put("c", "1").siblings == 1


def test_the_same_seed_takes_the_same_course_and_takes_milliseconds() -> None:
    def course(seed: int) -> str:
        cluster = Cluster(3, seed=seed)
        carts = cluster.connect().bucket("carts")
        cluster.kill("n2", power_loss=True)
        for i in range(10):
            carts.put("a", f"{i}")
        cluster.restart("n2")
        cluster.settle()
        return cluster._cluster.scheduler.trace

    began = time.process_time()
    assert course(1) == course(1) != course(2)
    assert time.process_time() - began < 3.0


def test_kvstore_does_without_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; from kvstore.testing import Cluster; Cluster()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_plugin_costs_other_projects_nothing() -> None:
    code = (
        "import sys, kvstore.testing.plugin; print([m for m in sys.modules if m in ('grpc', 'kvstore.sim')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_documented_tests_pass_word_for_word(tmp_path: Path) -> None:
    (blocks,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    (tmp_path / "test_shop.py").write_text(blocks)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", "test_shop.py"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_every_public_call_is_documented() -> None:
    table = " ".join(line for line in DOCUMENT.splitlines() if line.startswith("|"))
    public = [name for name in vars(Cluster) if not name.startswith("_")]
    assert [name for name in public if not re.search(rf"`{name}[`(]", table)] == []


def test_a_client_can_ask_for_a_repair_and_see_it_end(kvcluster: Cluster) -> None:
    db = kvcluster.connect()
    db.bucket("carts").put("user:1", b"v")
    kvcluster.kill("n3")
    answers = db.repair()
    assert isinstance(answers["n3"], kvstore.NoNodeAvailable)
    kvcluster.restart("n3")
    kvcluster.settle()
    db.repair()
    kvcluster.advance(10.0)
    left = db.repair(start=False)
    assert [answer.wanted for answer in left.values() if not isinstance(answer, kvstore.KVError)] == [0, 0, 0]
