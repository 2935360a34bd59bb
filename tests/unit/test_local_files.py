"""What lies in the directory of a local cluster may be anything: people copy, edit and truncate files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvstore.errors import ConfigError
from kvstore.local.cluster import LocalCluster
from kvstore.local.process import NodeProcess

GOOD = {"addresses": {"n1": "127.0.0.1:7001"}, "buckets": ["carts:n=1"]}


@pytest.mark.parametrize(
    "changed",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b"null",
        b"5",
        {},
        GOOD | {"addresses": []},
        GOOD | {"addresses": {}},
        GOOD | {"addresses": {"n1": 5}},
        GOOD | {"addresses": {"n1": "127.0.0.1"}},
        GOOD | {"addresses": {"n1": "127.0.0.1:99999"}},
        GOOD | {"addresses": {"n1\0": "127.0.0.1:7001"}},
        GOOD | {"addresses": {"../n1": "127.0.0.1:7001"}},
        GOOD | {"addresses": {"n\ud800": "127.0.0.1:7001"}},
        GOOD | {"buckets": "carts"},
        GOOD | {"buckets": [5]},
    ],
)
def test_a_file_that_is_no_local_cluster_is_one_line(
    changed: bytes | dict[str, object], tmp_path: Path
) -> None:
    text = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
    (tmp_path / "cluster.json").write_bytes(text)
    with pytest.raises(ConfigError, match="cannot be read as a local cluster"):
        LocalCluster.load(tmp_path)


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text(json.dumps(GOOD))
    layout = LocalCluster.load(tmp_path).layout
    assert (layout.addresses, layout.buckets) == (GOOD["addresses"], ("carts:n=1",))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        "5",
        "[]",
        '"a"',
        "{}",
        '{"pid": "x", "started": 1}',
        '{"pid": 1e400, "started": 1}',
        '{"pid": -1, "started": 1}',
        '{"pid": 99999999999999999999, "started": 1}',
        '{"pid": 1, "started": null}',
    ],
)
def test_a_file_that_remembers_no_process_is_that_of_a_node_that_does_not_run(
    text: str, tmp_path: Path
) -> None:
    (tmp_path / "pid").write_text(text)
    assert NodeProcess(tmp_path).running() is None
    assert not NodeProcess(tmp_path).kill()
