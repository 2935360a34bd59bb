"""Runs the tests on a copy of the project in which one defect was planted."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from pathlib import Path

from tools.mutants.changes import Change
from tools.mutants.reach import Reach
from tools.mutants.suites import Suite

_COPIED = ("kvstore", "tests", "jepsen", "tools", "pyproject.toml")
_PYTEST = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
_SEEDS = [sys.executable, "-m", "tools.mutants.seeds"]
_CHOSEN = "chosen-tests"
_BASELINE_SECONDS = 3600.0
_LATE_SECONDS = 120.0
_MEMORY = 4 << 30
_TEST_SECONDS = 60
"""A test that takes longer hangs."""
_SLOWER = 5.0
"""Times as long as without a defect, after which a run has hung: the machine may be busy."""
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)|^(seed \d+) failed", re.MULTILINE)


class Outcome(StrEnum):
    """What became of a defect."""

    KILLED = "killed"
    TIMEOUT = "timeout"
    SURVIVED = "survived"


@dataclass(frozen=True, slots=True)
class Result:
    """An outcome, the test or seed that noticed, and seconds."""

    outcome: Outcome
    by: str
    seconds: float


def copy_project(root: Path, directory: Path) -> None:
    """What the tests need, without what is generated when they run."""
    directory.mkdir(parents=True)
    for name in _COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, directory / name)


class Copy:
    """A copy of the project in `directory`, in which one defect at a time is planted."""

    def __init__(self, root: Path, directory: Path) -> None:
        self._directory = directory
        self._stamps = count(1_000_000_000)
        copy_project(root, directory)

    def baseline(self, suite: Suite) -> Reach:
        """Which tests of a suite run which lines; raises RuntimeError if one fails without a defect."""
        commands = [[*_PYTEST, "-p", "tools.mutants.tracing", *suite.paths(self._directory)]]
        if suite.late:
            commands.append([*_PYTEST, *suite.late])
        if suite.seeds:
            commands.append([*_SEEDS, str(suite.seeds), "--trace"])
        result = self._run(commands, _BASELINE_SECONDS)
        if result.outcome is not Outcome.SURVIVED:
            raise RuntimeError(f"the tests fail without any defect: {result.by}")
        return Reach.load(self._directory)

    def trial(self, change: Change, suite: Suite, reach: Reach) -> Result:
        """What became of one defect."""
        source = (self._directory / change.path).read_bytes()
        tests, seeds = reach.of(change, source)
        commands = []
        if tests:
            (self._directory / _CHOSEN).write_text("\n".join(tests))
            commands.append([*_PYTEST, f"--timeout={_TEST_SECONDS}", f"@{_CHOSEN}"])
        if suite.late:
            commands.append([*_PYTEST, f"--timeout={_TEST_SECONDS}", *suite.late])
        if seeds:
            commands.append([*_SEEDS, str(suite.seeds)])
        limit = _SLOWER * (sum(reach.seconds[test] for test in tests) + suite.seeds) + _LATE_SECONDS
        self._write(change.path, change.apply(source))
        try:
            return self._run(commands, limit)
        finally:
            self._write(change.path, source)

    def _write(self, path: str, text: bytes) -> None:
        """Each time with another time of change, in seconds: by it Python knows old bytecode."""
        (self._directory / path).write_bytes(text)
        stamp = next(self._stamps)
        os.utime(self._directory / path, (stamp, stamp))

    def _run(self, commands: list[list[str]], timeout: float) -> Result:
        began = time.monotonic()
        for command in commands:
            try:
                code, output = self._execute(command, began + timeout - time.monotonic())
            except subprocess.TimeoutExpired:
                return Result(Outcome.TIMEOUT, " ".join(command[1:3]), time.monotonic() - began)
            if code:
                found = _FAILED.search(output)
                by = next(filter(None, found.groups())) if found else " ".join(output.split()[-12:])
                return Result(Outcome.KILLED, by, time.monotonic() - began)
        return Result(Outcome.SURVIVED, "", time.monotonic() - began)

    def _execute(self, command: list[str], timeout: float) -> tuple[int, str]:
        """Exit code and output of a command; whatever it started has ended afterwards."""
        process = subprocess.Popen(
            command,
            cwd=self._directory,
            env=os.environ | {"PYTHONPATH": str(self._directory), "CI": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        # a loop that never ends may fill the memory first
        resource.prlimit(process.pid, resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        try:
            output, _ = process.communicate(timeout=timeout)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return process.returncode, output
