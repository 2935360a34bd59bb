"""IDENTITY is a format: what one version wrote, every later one must read (docs/data-directory.md).

The files were written once, each by the version that brought its format.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kvstore.config import parse_bucket
from kvstore.errors import WrongDataDirectory
from kvstore.ring import initial_state, parse_members
from kvstore.server.data_directory import IDENTITY, claim
from kvstore.server.identity import Bucket, Identity, encode, read

GOLDEN = Path(__file__).parent / "identity"
STATE = initial_state(
    "c1",
    parse_members("n1=10.0.0.1:7001/a,n2=10.0.0.2:7001/b,n3=10.0.0.3:7001"),
    64,
    3,
    [parse_bucket("carts:n=2"), parse_bucket("logs:conflict=lww"), parse_bucket("short:ttl=60,r=1,w=3")],
)
GIVEN = Identity.of("n1", STATE)
HOSTS = initial_state(
    "c1", parse_members("n1=10.0.0.1:7001/a/m1,n2=10.0.0.2:7001/b/m2,n3=10.0.0.3:7001//m3,n4=d:4"), 64, 3
)
WITH_HOSTS = Identity.of("n1", HOSTS)


def directory_of(format_: int, tmp_path: Path) -> Path:
    shutil.copy(GOLDEN / f"format-{format_}.json", tmp_path / IDENTITY)
    return tmp_path


def test_format_2_is_written_and_read_as_it_was() -> None:
    golden = (GOLDEN / "format-2.json").read_bytes()
    assert encode(GIVEN) == golden
    assert read(GOLDEN / "format-2.json") == ("n1", "c1", GIVEN)
    # what the page says, without the reader
    assert json.loads(golden) == {
        "format": 2,
        "node": "n1",
        "cluster_id": "c1",
        "partitions": 64,
        "replicas": 3,
        "members": {"n1": "a", "n2": "b", "n3": ""},
        "buckets": {
            "carts": {"n": 2, "conflict": "siblings"},
            "logs": {"n": 3, "conflict": "lww"},
        },
    }
    assert "short" not in GIVEN.buckets
    assert type(GIVEN.buckets["carts"]) is Bucket


def test_format_3_has_hosts() -> None:
    golden = (GOLDEN / "format-3.json").read_bytes()
    assert encode(WITH_HOSTS) == golden
    assert read(GOLDEN / "format-3.json") == ("n1", "c1", WITH_HOSTS)
    found = json.loads(golden)
    assert (found["format"], found["members"]) == (3, {"n1": "a/m1", "n2": "b/m2", "n3": "/m3", "n4": ""})


def test_hosts_that_changed_are_refused(tmp_path: Path) -> None:
    directory = directory_of(3, tmp_path)
    assert claim(directory, WITH_HOSTS) == directory / "engine"
    moved = parse_members("n1=10.0.0.1:7001/a/m1,n2=10.0.0.2:7001/b/m2,n3=10.0.0.3:7001//m4,n4=d:4")
    said = "members 'n1/a/m1,n2/b/m2,n3//m3,n4', not members 'n1/a/m1,n2/b/m2,n3//m4,n4'"
    with pytest.raises(WrongDataDirectory, match=said):
        claim(directory, Identity.of("n1", initial_state("c1", moved, 64, 3)))
    with pytest.raises(WrongDataDirectory, match="n3//m3"):
        claim(directory, GIVEN)


def test_format_1_is_read_and_renewed_with_what_is_given(tmp_path: Path) -> None:
    directory = directory_of(1, tmp_path)
    assert read(directory / IDENTITY) == ("n1", "c1", None)
    assert claim(directory, GIVEN) == directory / "engine"
    assert (directory / IDENTITY).read_bytes() == (GOLDEN / "format-2.json").read_bytes()


@pytest.mark.parametrize("format_", [1, 2, 3])
def test_anothers_of_each_format_is_left_alone(tmp_path: Path, format_: int) -> None:
    directory = directory_of(format_, tmp_path)
    before = (directory / IDENTITY).read_bytes()
    with pytest.raises(WrongDataDirectory, match="belongs to node n1 of cluster c1, not to node n2"):
        claim(directory, Identity.of("n2", STATE))
    assert (directory / IDENTITY).read_bytes() == before
