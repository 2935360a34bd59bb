"""The code on the client's pages, block by block, against real nodes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kvstore
from kvstore.local.cluster import LocalCluster

DOCS = Path(__file__).parents[2] / "docs"
ENDPOINTS = "127.0.0.1:7001,127.0.0.1:7002"


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_every_block_of_python_is_read() -> None:
    assert len(blocks("client.md")) >= 4
    assert len(blocks("reads.md")) == 1


@pytest.mark.parametrize(("number", "code"), list(enumerate([*blocks("client.md"), *blocks("reads.md")])))
def test_a_block_runs_as_printed(shared_cluster: LocalCluster, number: int, code: str) -> None:
    """Each with `kvstore` and a client `db`, as the page's first block has them, and a bucket of its own.

    And again, as who tries it does: then the keys have values that this program has not seen.
    """
    code = code.replace('bucket("carts"', f'bucket("client-page-{number}"')
    code = code.replace(ENDPOINTS, shared_cluster.endpoints)
    for _ in range(2):
        with kvstore.connect(shared_cluster.endpoints) as db:
            exec(code, {"kvstore": kvstore, "db": db})
