"""`python -m tools.packages`: what a user gets, in each Python that is here.

Builds sdist and wheel, installs them into new environments, and does there what users do: type-check and run
a program against nodes that were started with the installed commands, and test with the installed fixture.
What an environment needs comes from the package index, in the versions of constraints.txt.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvstore.local.ports import free_ports

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.11", "3.12", "3.13")
CLIENT = (
    "google-crc32c",
    "googleapis-common-protos",
    "mmh3",
    "msgspec",
    "protobuf",
    "typing-extensions",
)
"""What a program needs that is a client and nothing else: see docs/installing.md."""
_PROGRAM = ROOT / "tests" / "packaging" / "user_program.py"
_TESTS = ROOT / "tests" / "packaging" / "user_tests.py"

_HAS_PROTOS = """
import importlib.resources, kvstore
assert (importlib.resources.files(kvstore) / "proto/kvstore/v1/client.proto").is_file()
"""


def main() -> None:
    """Every Python with the wheel, the first one with the sdist as well; ends with 1 where there is none."""
    pythons = []
    for version in VERSIONS:
        if found := _find(version):
            pythons.append(found)
        else:
            print(f"skipped: no Python {version} with venv was found", flush=True)
    if not pythons:
        sys.exit("no Python to install into")
    with tempfile.TemporaryDirectory(prefix="kvstore-packages-") as directory:
        place = Path(directory)
        sdist, wheel = _build(place / "dist")
        for number, (python, archive) in enumerate(
            [(pythons[0], sdist), *((each, wheel) for each in pythons)]
        ):
            print(f"== {archive.name} in {python}", flush=True)
            environment = _environment(python, place / f"environment-{number}")
            _install(environment, str(archive))
            size = _size(environment)
            _install(environment, "mypy", "pytest")
            _use(environment, place / "work")
        print(f"== the client alone in {pythons[0]}", flush=True)
        client = _environment(pythons[0], place / "client")
        _install(client, *CLIENT)
        _install(client, "--no-deps", str(wheel))
        client_size = _size(client)
        _use_client(client, environment, place / "work")
        print(f"installed: {size / 1e6:,.0f} MB, the client alone: {client_size / 1e6:,.0f} MB")


def _find(version: str) -> str:
    """The interpreter of a version: on the PATH, or one that pyenv has; empty if there is none."""
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [name, *map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/{name}")))]
    return next((each for each in candidates if shutil.which(each) and _has_venv(each)), "")


def _has_venv(python: str) -> bool:
    tried = subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True, check=False)
    return tried.returncode == 0


def _build(into: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is made of the tree."""
    for target in ("sdist", "wheel"):
        command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(into)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return next(into.glob("*.tar.gz")), next(into.glob("*.whl"))


def _environment(python: str, place: Path) -> Path:
    """The directory of programs of a new environment."""
    subprocess.run([python, "-m", "venv", str(place)], check=True)
    return place / "bin"


def _install(programs: Path, *what: str) -> None:
    constraints = str(ROOT / "constraints.txt")
    settings = {"PIP_CONSTRAINT": constraints, "PIP_BUILD_CONSTRAINT": constraints}
    command = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
    subprocess.run([programs / "python", *command], env=os.environ | settings, check=True)


def _use(programs: Path, work: Path) -> None:
    """All that users do, in a directory that has nothing of this project."""
    _empty(work)
    _run(programs, work, "kvctl", "--version")
    _run(programs, work, "mypy", "--strict", _PROGRAM.name, _TESTS.name)
    _run(programs, work, "pytest", "-q", "-W", "error", _TESTS.name)
    _run(programs, work, "python", "-c", _HAS_PROTOS)
    with _node(programs, work) as address:
        _run(programs, work, "python", _PROGRAM.name, address)


def _use_client(client: Path, programs: Path, work: Path) -> None:
    """A user's program in an environment that could not start a node, against one of another."""
    _empty(work)
    with _node(programs, work) as address:
        _run(client, work, "python", _PROGRAM.name, address)


def _empty(work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    for file in (_PROGRAM, _TESTS):
        shutil.copy(file, work)


@contextmanager
def _node(programs: Path, work: Path) -> Iterator[str]:
    (port,) = free_ports(1)
    try:
        _run(programs, work, "kvctl", "cluster", "start", "--nodes", "1", "--port", str(port))
        yield f"127.0.0.1:{port}"
    finally:
        _run(programs, work, "kvctl", "cluster", "stop")


def _run(programs: Path, work: Path, program: str, *arguments: str) -> None:
    print(f"   {program} {' '.join(arguments)}", flush=True)
    subprocess.run([programs / program, *arguments], cwd=work, check=True)


def _size(programs: Path) -> int:
    """Bytes of what is installed in an environment, beside pip."""
    (packages,) = programs.parent.glob("lib/python*/site-packages")
    files = (file for file in packages.rglob("*") if file.is_file() and not file.is_symlink())
    return sum(
        file.stat().st_size for file in files if not file.relative_to(packages).parts[0].startswith("pip")
    )


if __name__ == "__main__":
    main()
