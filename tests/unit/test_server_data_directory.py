"""A data directory is one node's of one cluster, and nobody else's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kvstore.errors import ConfigError, WrongDataDirectory
from kvstore.server.data_directory import IDENTITY, claim


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_a_new_directory_is_claimed_and_stays_claimed(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "data"
    assert claim(directory, "n1", "c1") == directory / "engine"
    before = contents(directory)
    assert claim(directory, "n1", "c1") == directory / "engine"
    assert contents(directory) == before
    assert json.loads(before[IDENTITY]) == {"format": 1, "node": "n1", "cluster_id": "c1"}


@pytest.mark.parametrize(("node", "cluster"), [("n2", "c1"), ("n1", "c2")])
def test_anothers_is_refused(tmp_path: Path, node: str, cluster: str) -> None:
    claim(tmp_path, "n1", "c1")
    before = contents(tmp_path)
    with pytest.raises(WrongDataDirectory, match=f"belongs to node n1 of cluster c1, not to node {node}"):
        claim(tmp_path, node, cluster)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"node": "n1", "cluster_id": "c1"}', "damaged"),
        ('{"format": 2, "node": "n1", "cluster_id": "c1"}', "format 2"),
    ],
)
def test_an_identity_that_cannot_be_understood(tmp_path: Path, identity: str, reason: str) -> None:
    (tmp_path / IDENTITY).write_text(identity)
    with pytest.raises(WrongDataDirectory, match=reason):
        claim(tmp_path, "n1", "c1")
    assert contents(tmp_path) == {IDENTITY: identity.encode()}


def test_a_directory_with_other_things_in_it(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("not yours")
    with pytest.raises(WrongDataDirectory, match="neither empty nor"):
        claim(tmp_path, "n1", "c1")
    assert contents(tmp_path) == {"letter.txt": b"not yours"}


def test_a_crash_while_claiming_is_forgiven(tmp_path: Path) -> None:
    (tmp_path / "IDENTITY.new").write_text('{"format": 1, "no')
    claim(tmp_path, "n1", "c1")
    assert set(contents(tmp_path)) == {IDENTITY}


def test_what_cannot_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(ConfigError, match="cannot be used"):
            claim(place, "n1", "c1")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_is_not_writable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be used"):
        claim(tmp_path, "n1", "c1")
