"""Every block of code in the pages is run by a test: here the commands; and none is left out.

What a block is, its language says; `text` is a form or an output, which other tests hold.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from jepsen.history import History
from tests.programs import output_of
from tools.packages import CLIENT

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "bench" / "README.md"]
HERE = "tests/unit/test_pages.py"
RUN_BY = {
    ("README.md", "python"): "tests/cluster/test_readme.py",
    ("README.md", "sh"): "tests/cluster/test_readme.py",
    ("client.md", "python"): "tests/cluster/test_client_page.py",
    ("client.md", "mermaid"): "tests/unit/test_client_attempts.py",
    ("client-environments.md", "python"): "tests/cluster/test_client_environments.py",
    ("engine.md", "python"): "tests/unit/test_engine_page.py",
    ("grpc.md", "go"): "tests/cluster/test_grpc_page.py",
    ("grpc.md", "js"): "tests/cluster/test_grpc_page.py",
    ("grpc.md", "sh"): "tests/cluster/test_grpc_page.py",
    ("guarantees.md", "sh"): HERE,
    ("installing.md", "sh"): HERE,
    ("operations.md", "sh"): "tests/unit/test_server_settings.py",
    ("reads.md", "python"): "tests/cluster/test_client_page.py",
    ("request-states.md", "mermaid"): "tests/unit/test_operations_page.py",
    ("settings.md", "toml"): "tests/unit/test_server_settings.py",
    ("simulator.md", "python"): HERE,
    ("simulator.md", "sh"): HERE,
    ("testing-your-application.md", "python"): "tests/sim/test_testing_cluster.py",
    ("bench/README.md", "sh"): HERE,
}
"""The blocks of one language of a page, and the test that runs them."""
NOT_HERE = ("pip install",)
"""What needs a network: `make packages` does it."""


def name(page: Path) -> str:
    return "bench/README.md" if page.parent.name == "bench" else page.name


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Those of the blocks that are run here, without the comments behind them."""
    lines: list[str] = []
    for page in PAGES:
        if RUN_BY.get((name(page), "sh")) == HERE or name(page) == "README.md":
            text = "".join(text for language, text in blocks(page) if language == "sh")
            lines += [line.partition("  #")[0].strip() for line in text.replace("\\\n", " ").splitlines()]
    return [
        line for line in lines if not line.startswith(NOT_HERE) and not line.startswith(".venv/bin/kvctl")
    ]


def test_no_block_is_without_a_language_and_a_test_that_runs_it() -> None:
    found = {(name(page), language) for page in PAGES for language, _ in blocks(page)}
    assert {language for _, language in found} >= {"python", "sh", "toml", "text"}
    assert {each for each in found if each[1] != "text"} == set(RUN_BY)
    for page in PAGES:
        assert page.read_text().count("```") == 2 * len(blocks(page)), f"a fence of {page} is no block"
    for (page_name, _), test in RUN_BY.items():
        stem = page_name.removesuffix(".md")
        assert stem in (ROOT / test).read_text(), f"{test} does not speak of {page_name}"


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("make ")])
def test_what_make_is_told_it_can_do(command: str) -> None:
    """With the variables that the line gives; what it would run is shown, not run."""
    words = shlex.split(command)
    output_of([words[0], "-n", *words[1:]], ROOT)
    help_of = re.findall(r"^([a-z-]*):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert words[1] in help_of
    told = {word.partition("=")[0] for word in words[2:]}
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"$({variable})" in makefile for variable in told), f"nobody reads one of {told}"


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith((".venv/", "python "))])
def test_a_program_takes_the_arguments_that_a_page_gives_it(command: str) -> None:
    """Click reads all of them before it shows help."""
    words = [sys.executable, *shlex.split(command)[1:]]
    quick = words[1] == "-c" or words[-1] == "list"
    assert output_of(words if quick else [*words, "--help"], ROOT)


def test_the_scenario_by_hand_runs_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = [text for language, text in blocks(ROOT / "docs" / "simulator.md") if language == "python"]
    exec(code, {})
    stored, found = capsys.readouterr().out.splitlines()
    assert stored.startswith("Stored(")
    assert "value=b'v'" in found


def test_what_the_pages_show_of_runs_and_files_is_so(tmp_path: Path) -> None:
    (lines,) = [text for language, text in blocks(ROOT / "docs" / "simulator.md") if language == "text"]
    golden = "a_put_while_one_replica_is_down_leaves_a_hint_that_goes_home.txt"
    assert set(lines.splitlines()) <= set((ROOT / "tests/sim/golden" / golden).read_text().splitlines())
    (lines,) = [text for language, text in blocks(ROOT / "docs" / "histories.md") if language == "text"]
    (tmp_path / "history.jsonl").write_text(lines)
    assert [each.type for each in History.read(tmp_path / "history.jsonl")] == ["invoke", "ok"]


def test_the_file_that_examples_import_is_there_after_one_command(tmp_path: Path) -> None:
    file = tmp_path / "airports.jsonl"
    output_of([sys.executable, "-m", "kvstore.local.airports", str(file)], ROOT)
    lines = file.read_text().splitlines()
    assert len(lines) > 25_000
    assert all(json.loads(line)["icao"] for line in lines)
    assert "-m kvstore.local.airports airports.jsonl" in output_of(["make", "-n", "airports"], ROOT)


def test_the_packages_that_a_client_needs_are_those_that_are_tried() -> None:
    text = (ROOT / "docs" / "installing.md").read_text().replace("\\\n", " ")
    (listed,) = re.findall(r"^pip install (google.*)$", text, re.MULTILINE)
    assert set(listed.split()) == set(CLIENT)
