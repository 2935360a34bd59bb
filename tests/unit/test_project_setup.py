"""tools/setup-venv, which `make run` and `make test` begin with, says in one line what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OLD = f"""#!/bin/sh
exec "{sys.executable}" -c 'import sys; sys.version_info = (3, 10, 14); exec(sys.argv[1])' "$2"
"""
WITHOUT_VENV = f"""#!/bin/sh
case "$2" in *ensurepip*) exit 1 ;; esac
exec "{sys.executable}" "$@"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory with the script and nothing else, and a PATH of its own in bin/."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "setup-venv", tmp_path / "tools")
    (tmp_path / "bin").mkdir()
    for tool in ("mkdir", "touch"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or pytest.fail(f"no {tool}"))
    return tmp_path


def add_program(checkout: Path, name: str, script: str) -> None:
    program = checkout / "bin" / name
    program.write_text(script)
    program.chmod(0o755)


def error_of_setup(checkout: Path, python: str = "") -> str:
    """Run the script, which must fail with one line, and return that line."""
    environment = {**os.environ, "PATH": str(checkout / "bin"), "PYTHON": python}
    done = subprocess.run(
        ["/bin/sh", "tools/setup-venv"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    return line


def test_no_python(checkout: Path) -> None:
    assert "Python 3.11 or newer is needed and not found" in error_of_setup(checkout)


def test_only_an_old_python(checkout: Path) -> None:
    add_program(checkout, "python3", OLD)
    assert "Python 3.11 or newer is needed and not found" in error_of_setup(checkout)


def test_chosen_python_does_not_exist(checkout: Path) -> None:
    assert error_of_setup(checkout, "python9").endswith("there is no program PYTHON=python9")


def test_chosen_python_is_old(checkout: Path) -> None:
    add_program(checkout, "python3.9", OLD)
    assert error_of_setup(checkout, "python3.9").endswith(
        "3.11 or newer is needed, and PYTHON=python3.9 is not"
    )


def test_no_venv_module(checkout: Path) -> None:
    add_program(checkout, "python3", WITHOUT_VENV)
    assert "python3 has no venv module" in error_of_setup(checkout)
    assert not (checkout / ".venv").exists()


def test_an_old_python3_does_not_hide_a_newer_one(checkout: Path) -> None:
    add_program(checkout, "python3", OLD)
    add_program(checkout, "python3.12", WITHOUT_VENV)
    assert "python3.12 has no venv module" in error_of_setup(checkout)


def test_directory_cannot_be_written(checkout: Path) -> None:
    add_program(checkout, "python3", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (checkout / ".venv").write_text("in the way")
    assert f"cannot write to {checkout}" in error_of_setup(checkout)


def test_what_is_installed_has_the_versions_of_constraints_and_hashes() -> None:
    def pins(file: str) -> dict[str, str]:
        lines = (ROOT / file).read_text().replace("\\\n", " ").splitlines()
        found = [line for line in lines if "==" in line and not line.startswith("#")]
        return {line.split("==")[0]: line.split("==")[1].split()[0] for line in found}

    of_each = [
        line.count("--hash=sha256:")
        for line in (ROOT / "requirements.txt").read_text().replace("\\\n", " ").splitlines()
        if "==" in line and not line.startswith("#")
    ]
    assert min(of_each) >= 1
    installed, allowed = pins("requirements.txt"), pins("constraints.txt")
    only_windows = {"cffi", "colorama", "pycparser"}
    assert {name: allowed.get(name) for name in installed.keys() - only_windows} == {
        name: version for name, version in installed.items() if name not in only_windows
    }
