"""Rules about the source that no linter has: what a reader can take in, and which names it must not hold."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "kvstore" / "v1"
FUNCTION_LINES = 70
FILE_LINES = 500
# In two halves, so that this file does not break the rule.
REGISTRY_HOSTS = [
    f"{name}.{domain}"
    for name, domain in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("anaconda", "org"),
        ("crates", "io"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("golang", "org"),
        ("maven", "org"),
        ("debian", "org"),
        ("ubuntu", "com"),
    ]
]


def source_files() -> list[Path]:
    files = [
        p
        for top in ("kvstore", "bench", "jepsen", "tools")
        for p in (ROOT / top).rglob("*.py")
        if GENERATED not in p.parents
    ]
    assert len(files) > 20, "the source was not found"
    return files


def long_functions(source: str, limit: int) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > limit:
                yield f"{node.name}, line {node.lineno}: {lines} lines"


def project_files() -> Iterator[Path]:
    """Every file a person wrote; what git ignores lies in the directories left out."""
    for directory, subdirectories, names in os.walk(ROOT):
        subdirectories[:] = [
            d
            for d in subdirectories
            if d == ".ci" or not (d.startswith(".") or d in {"build", "dist", "__pycache__"})
        ]
        yield from (Path(directory) / name for name in names)


def test_no_function_is_longer_than_a_thought() -> None:
    assert [
        f"{path}: {found}"
        for path in source_files()
        for found in long_functions(path.read_text(), FUNCTION_LINES)
    ] == []


def test_no_file_is_longer_than_a_concept() -> None:
    lines = {str(path): len(path.read_text().splitlines()) for path in source_files()}
    assert {path: count for path, count in lines.items() if count > FILE_LINES} == {}


def test_no_file_names_a_package_registry() -> None:
    named = [
        f"{path}: {host}"
        for path in project_files()
        for host in REGISTRY_HOSTS
        if host.encode() in path.read_bytes().lower()
    ]
    assert named == []


def wide_prose(page: str) -> list[str]:
    """Lines of a page over 110 columns; tables and code are as wide as they are."""
    blocks = re.split(r"^```.*$", page, flags=re.MULTILINE)
    lines = [line for block in blocks[::2] for line in block.splitlines()]
    return [line for line in lines if len(line) > 110 and not line.startswith("|")]


def test_no_line_of_prose_is_wider_than_code_may_be() -> None:
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    assert len(pages) > 10
    found = {page.name: wide_prose(page.read_text()) for page in pages}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_tables_and_code_may_be_wide() -> None:
    wide = "x" * 111
    assert wide_prose(f"{wide}\n```python\n{wide}\n```\n| {wide} |\n{wide[1:]}\n- {wide}") == [
        wide,
        f"- {wide}",
    ]


@pytest.mark.parametrize("header", ["def f():", "async def f():", "class A:\n  def f(self):"])
def test_function_length_counts_from_def_to_the_last_line(header: str) -> None:
    body = "\n    pass" * 3
    assert list(long_functions(header + body, 4)) == []
    assert len(list(long_functions(header + body, 3))) == 1


def test_no_target_of_make_is_there_twice() -> None:
    """make warns, and takes the last one."""
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert sorted(targets) == sorted(set(targets))


def named_files(page: str) -> set[str]:
    """The source files that a page names, by their paths or by their names."""
    return set(re.findall(r"`([\w./-]+\.(?:py|proto))`", page))


def test_every_source_file_that_a_page_names_exists() -> None:
    files = [f"/{path.relative_to(ROOT)}" for path in project_files()]
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "bench").glob("*.md"), ROOT / "README.md"]
    missing = {
        page.name: {
            name for name in named_files(page.read_text()) if not any(f.endswith(f"/{name}") for f in files)
        }
        for page in pages
    }
    assert {page: names for page, names in missing.items() if names} == {}


def test_every_member_of_a_class_that_a_page_names_exists() -> None:
    members: dict[str, set[str]] = {}
    for path in (ROOT / "kvstore").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                inside = list(ast.walk(node))
                members.setdefault(node.name, set()).update(
                    {
                        each.name
                        for each in inside
                        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
                    },
                    {each.attr for each in inside if isinstance(each, ast.Attribute)},
                    {each.id for each in inside if isinstance(each, ast.Name)},
                )
    named = {
        (page.name, found)
        for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
        for found in re.findall(r"`([A-Z]\w+)\.(\w+)", page.read_text())
    }
    assert {(page, c, m) for page, (c, m) in named if c in members and m not in members[c]} == set()
