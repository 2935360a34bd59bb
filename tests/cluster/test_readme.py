"""The README, word by word, but for the ports: those of this machine may be taken."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.local.cluster import DEFAULT_DIRECTORY, LocalCluster
from tests.programs import output_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def readme_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """What `make run` starts, where kvctl looks for it."""
    found = LocalCluster.create(tmp_path_factory.mktemp("readme") / DEFAULT_DIRECTORY, first_port=None)
    try:
        found.start()
        yield found
    finally:
        found.stop()


def test_the_first_screen_shows_both_commands_and_a_short_example() -> None:
    first_screen = "\n".join(README.splitlines()[:35])
    assert "make run" in first_screen
    assert "make test" in first_screen
    example = [line for line in _example().splitlines() if line.strip()]
    assert len(example) <= 10
    assert _example() in first_screen + "\n"


def test_the_python_example_runs_as_printed(readme_cluster: LocalCluster) -> None:
    code = _example().replace("127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003", readme_cluster.endpoints)
    assert code != _example()
    siblings, resolved = output_of([sys.executable, "-c", code], ROOT).splitlines()
    assert sorted(eval(siblings)) == [b"2 pears", b"3 apples"]
    assert resolved == "b'3 apples, 2 pears'"


def test_every_kvctl_line_works(readme_cluster: LocalCluster) -> None:
    here = readme_cluster.directory.parents[len(DEFAULT_DIRECTORY.parts) - 1]
    lines = [line for _, text in BLOCKS for line in text.splitlines() if line.startswith(".venv/bin/kvctl")]
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line)[1:]
        assert output_of([sys.executable, "-m", "kvstore.kvctl.main", *words], here)


def test_every_page_it_links_to_exists() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name} links to {link}"


def _example() -> str:
    found: str = next(text for language, text in BLOCKS if language == "python")
    return found
