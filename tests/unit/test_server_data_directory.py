"""A data directory is one node's of one cluster, stored with settings that stay, and nobody else's."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.config import parse_bucket
from kvstore.errors import ConfigError, WrongDataDirectory
from kvstore.ring import initial_state, parse_members
from kvstore.server import data_directory
from kvstore.server.data_directory import IDENTITY, claim
from kvstore.server.identity import Identity, read

MEMBERS = "n1=h:1,n2=h:2,n3=h:3,n4=h:4/z"


def identity(
    *buckets: str,
    node: str = "n1",
    cluster: str = "c1",
    partitions: int = 64,
    replicas: int = 3,
    members: str = MEMBERS,
) -> Identity:
    settings = [parse_bucket(bucket, replicas) for bucket in buckets]
    return Identity.of(node, initial_state(cluster, parse_members(members), partitions, replicas, settings))


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_a_new_directory_is_claimed_and_stays_claimed(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "data"
    assert claim(directory, identity()) == directory / "engine"
    before = contents(directory)
    assert claim(directory, identity()) == directory / "engine"
    assert contents(directory) == before
    assert set(before) == {IDENTITY}


def test_what_is_made_is_private_and_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    directory = tmp_path / "deep" / "data"
    claim(directory, identity())
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / IDENTITY).stat().st_mode) == 0o600
    assert synced == [
        str(tmp_path / "deep"),
        str(tmp_path),
        str(directory / "IDENTITY.new"),
        str(directory),
    ]


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "IDENTITY")
    with pytest.raises(WrongDataDirectory, match="damaged"):
        claim(tmp_path, identity())


@pytest.mark.parametrize(("node", "cluster"), [("n2", "c1"), ("n1", "c2")])
def test_anothers_is_refused(tmp_path: Path, node: str, cluster: str) -> None:
    claim(tmp_path, identity())
    before = contents(tmp_path)
    with pytest.raises(WrongDataDirectory, match=f"belongs to node n1 of cluster c1, not to node {node}"):
        claim(tmp_path, identity(node=node, cluster=cluster))
    assert contents(tmp_path) == before


STORED = ("carts:n=2", "logs:conflict=lww", "plain:r=1", "short:ttl=60")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"partitions": 256}, "partitions=64, not partitions=256"),
        ({"replicas": 2}, "not replicas=2, bucket carts:n=2,conflict=siblings, bucket logs:n=2,conflict=lww"),
        ({"members": MEMBERS + ",n5=h:5"}, "members 'n1,n2,n3,n4/z', not members 'n1,n2,n3,n4/z,n5'"),
        ({"members": MEMBERS.replace("/z", "")}, "members 'n1,n2,n3,n4/z', not members 'n1,n2,n3,n4'"),
        ({"members": MEMBERS + "/m"}, "members 'n1,n2,n3,n4/z', not members 'n1,n2,n3,n4/z/m'"),
        (
            {"members": MEMBERS.replace("h:1", "h:1//m")},
            "members 'n1,n2,n3,n4/z', not members 'n1//m,n2,n3,n4/z'",
        ),
        (
            {"buckets": ("carts:n=1", *STORED[1:])},
            "bucket carts:n=2,conflict=siblings, not bucket carts:n=1,conflict=siblings",
        ),
        (
            {"buckets": STORED[1:]},
            "bucket carts:n=2,conflict=siblings, not bucket carts:n=3,conflict=siblings",
        ),
        (
            {"buckets": (STORED[0], *STORED[2:])},
            "bucket logs:n=3,conflict=lww, not bucket logs:n=3,conflict=siblings",
        ),
        (
            {"buckets": (*STORED, "new:n=2")},
            "bucket new:n=3,conflict=siblings, not bucket new:n=2,conflict=siblings",
        ),
        (
            {"buckets": (*STORED, "new:conflict=lww")},
            "bucket new:n=3,conflict=siblings, not bucket new:n=3,conflict=lww",
        ),
        (
            {"buckets": (*STORED, *(f"b{i}:n=1" for i in range(9)))},
            "conflict=siblings (and 4 more)",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_what_was_stored_with_other_settings_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    claim(tmp_path, identity(*STORED))
    before = contents(tmp_path)
    change = dict(change)
    buckets = change.pop("buckets", STORED)
    with pytest.raises(WrongDataDirectory) as caught:
        claim(tmp_path, identity(*buckets, **change))
    assert str(caught.value).endswith(said)
    assert f"data directory {tmp_path} holds what was stored with " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "buckets",
    [
        ("carts:n=2,r=2,w=1,quorum=sloppy,ttl=9", "logs:conflict=lww,w=3"),
        (*STORED, "new:ttl=60"),
        (*STORED, "new:n=3,r=1,w=1,quorum=sloppy"),
    ],
)
def test_what_changes_nothing_stored_may_change(tmp_path: Path, buckets: tuple[str, ...]) -> None:
    claim(tmp_path, identity(*STORED))
    before = contents(tmp_path)
    moved = MEMBERS.replace("h:2", "elsewhere:2")
    claim(tmp_path, identity(*buckets, members=moved))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ("[" * 100_000, "damaged"),
        ('{"node": "n1", "cluster_id": "c1"}', "damaged"),
        ('{"format": 1, "node": "n1\\n", "cluster_id": "c1"}', "damaged"),
        ('{"format": 2, "node": "n1", "cluster_id": "c1"}', "damaged"),
        ('{"format": 1e999}', "damaged"),
        ('{"format": 3, "node": "n1", "cluster_id": "c1"}', "damaged"),
        ('{"format": 4, "node": "n1", "cluster_id": "c1"}', "format 4, this program knows formats 1 to 3"),
        pytest.param(" " * 17_000_000, "damaged", id="huge"),
    ],
)
def test_an_identity_that_cannot_be_understood(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / IDENTITY).write_text(text)
    with pytest.raises(WrongDataDirectory, match=reason):
        claim(tmp_path, identity())
    assert contents(tmp_path) == {IDENTITY: text.encode()}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("n1"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
fields = {"node": "n1", "cluster_id": "c1", "partitions": 64, "replicas": 3, "members": {}, "buckets": {}}


@given(
    st.binary()
    | values.map(json.dumps).map(str.encode)
    | st.fixed_dictionaries(
        {"format": st.sampled_from([1, 2, 3]) | values},
        optional={k: st.just(v) | values for k, v in fields.items()},
    )
    .map(json.dumps)
    .map(str.encode)
)
def test_no_identity_makes_the_reader_fail_otherwise(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "some identity"
    file.write_bytes(data)
    try:
        node, cluster, _ = read(file)
    except WrongDataDirectory as error:
        assert "\n" not in str(error)
    else:
        assert node.isprintable()
        assert cluster.isprintable()


def test_a_directory_with_other_things_in_it(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("not yours")
    with pytest.raises(WrongDataDirectory, match="neither empty nor"):
        claim(tmp_path, identity())
    assert contents(tmp_path) == {"letter.txt": b"not yours"}


def test_a_crash_while_claiming_is_forgiven(tmp_path: Path) -> None:
    (tmp_path / "IDENTITY.new").write_text('{"format": 1, "no')
    claim(tmp_path, identity())
    assert set(contents(tmp_path)) == {IDENTITY}


def test_a_link_under_the_name_of_the_unfinished_file_leads_nowhere(tmp_path: Path) -> None:
    directory, victim = tmp_path / "data", tmp_path / "victim"
    directory.mkdir()
    victim.write_text("precious")
    (directory / "IDENTITY.new").symlink_to(victim)
    claim(directory, identity())
    assert victim.read_text() == "precious"
    assert not (directory / IDENTITY).is_symlink()


def test_a_link_that_is_made_in_that_moment_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    real = os.open

    def late(path: Path, *rest: int) -> int:
        Path(path).symlink_to(victim)
        return real(path, *rest)

    monkeypatch.setattr(os, "open", late)
    (tmp_path / "data").mkdir()
    with pytest.raises(ConfigError, match="cannot be used: File exists"):
        claim(tmp_path / "data", identity())
    assert victim.read_text() == "precious"


def test_a_file_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a letter")
    with pytest.raises(ConfigError, match="cannot be used: Not a directory"):
        claim(tmp_path / "data", identity())
    assert (tmp_path / "data").read_text() == "a letter"


def full(_: Path, __: Identity) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_no_hindrance_to_what_is_this_nodes_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old = b'{"format": 1, "node": "n1", "cluster_id": "c1"}'
    (tmp_path / IDENTITY).write_bytes(old)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(data_directory, "_write", full)
        claim(tmp_path, identity())
        assert (tmp_path / IDENTITY).read_bytes() == old
        assert "stays of format 1 until there is space" in caplog.text
        with pytest.raises(ConfigError, match="cannot be used: No space left on device"):
            claim(tmp_path / "new", identity())
    claim(tmp_path, identity())
    assert read(tmp_path / IDENTITY)[2] == identity()
    monkeypatch.setattr(data_directory, "_write", full)
    claim(tmp_path, identity())


def test_a_write_that_fails_leaves_no_file_and_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = b'{"format": 1, "node": "n1", "cluster_id": "c1"}'
    (tmp_path / IDENTITY).write_bytes(old)

    def fsync(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    claim(tmp_path, identity())
    assert contents(tmp_path) == {IDENTITY: old}


def test_what_cannot_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(ConfigError, match="cannot be used"):
            claim(place, identity())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_is_not_writable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be used"):
        claim(tmp_path, identity())
