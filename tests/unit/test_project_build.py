"""The wheel: built from the tree and from an sdist it holds the generated protocol and what users need."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hatch_build import generate

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("admin", "client", "peer", "stream")
GENERATED = {"__init__.py"} | {f"{part}_pb2{end}" for part in PARTS for end in (".py", ".pyi", "_grpc.py")}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what a build reads, as a fresh clone has it: without the generated package."""
    copy = tmp_path / "tree"
    shutil.copytree(
        ROOT / "kvstore", copy / "kvstore", ignore=shutil.ignore_patterns("v1", ".v1-*", "__pycache__")
    )
    shutil.copytree(ROOT / "proto", copy / "proto")
    for name in ("pyproject.toml", "hatch_build.py", "LICENSE", "README.md", ".gitignore"):
        shutil.copy(ROOT / name, copy)
    return copy


def build(source: Path, target: str) -> Path:
    """Build target (wheel or sdist) with the hatchling of this environment; no network, no isolation."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", target], cwd=source, check=True)
    (archive,) = (source / "dist").glob("*.whl" if target == "wheel" else "*.tar.gz")
    return archive


def check_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.removeprefix("kvstore/v1/") for name in names if name.startswith("kvstore/v1/")} == GENERATED
    assert "kvstore/py.typed" in names
    assert {f"kvstore/proto/kvstore/v1/{part}.proto" for part in PARTS} <= names
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {"kvstore", "kvstore-0.1.0.dist-info"}


def test_wheel_from_the_tree(tree: Path) -> None:
    check_wheel(build(tree, "wheel"))


def test_wheel_from_an_sdist(tree: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "tarfile", "-e", build(tree, "sdist"), tmp_path], check=True)
    source = tmp_path / "kvstore-0.1.0"
    assert not (source / "kvstore" / "v1").exists()
    check_wheel(build(source, "wheel"))


def test_generated_package_is_replaced_whole(tree: Path) -> None:
    generate(tree)
    stale = tree / "kvstore" / "v1" / "gone_pb2.py"
    stale.touch()
    generate(tree)
    assert {path.name for path in (tree / "kvstore" / "v1").iterdir()} == GENERATED


@pytest.mark.parametrize("damage", ["broken", "missing"])
def test_protocol_that_cannot_be_compiled_leaves_the_old_package(tree: Path, damage: str) -> None:
    generate(tree)
    for proto in (tree / "proto" / "kvstore" / "v1").glob("*.proto"):
        if damage == "missing":
            proto.unlink()
        else:
            proto.write_text("no protocol")
    with pytest.raises(RuntimeError, match="no Python code could be generated"):
        generate(tree)
    assert {path.name for path in (tree / "kvstore" / "v1").iterdir()} == GENERATED
    assert [path.name for path in (tree / "kvstore").glob(".v1-*")] == []
