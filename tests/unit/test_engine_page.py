"""docs/engine.md: every example runs, in order, as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kvstore.lsm import Options

PAGE = Path(__file__).parents[2] / "docs" / "engine.md"
TEXT = PAGE.read_text()


def example(match: re.Match[str]) -> str:
    """Code behind as many empty lines that a failure names the line of the page."""
    return "\n" * (TEXT[: match.start(1)].count("\n")) + match[1]


EXAMPLES = [example(match) for match in re.finditer(r"```python\n(.*?)```", TEXT, re.DOTALL)]


def test_every_example_runs_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    assert len(EXAMPLES) >= 9
    for code in EXAMPLES:
        exec(compile(code, str(PAGE), "exec"), namespace)


def test_every_option_is_on_the_page() -> None:
    table = TEXT[TEXT.index("| option |") : TEXT.index("**Write stalls.**")]
    assert {field for field in Options.__dataclass_fields__ if f"`{field}`" not in table} == set()
