"""Which files are mutated, and which tests must notice a defect in each.

Left out are the recorded transcripts of the simulator: they change with every decision that a node takes
otherwise, whether that breaks a promise or not; and the tests of the simulator's own command. Tests of real
clusters take minutes each.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Suite:
    """Patterns of the files that it is for, of its tests, and what follows when those have not noticed.

    `late` are test files that run so much that to trace them would take minutes: all of them are tried.
    """

    files: tuple[str, ...]
    tests: tuple[str, ...]
    late: tuple[str, ...]
    seeds: int

    def paths(self, root: Path) -> list[str]:
        """The files of its tests without the late ones; raises ValueError if a pattern stands for none."""
        found: list[str] = []
        for pattern in self.tests:
            paths = sorted(str(path.relative_to(root)) for path in root.glob(pattern))
            if not paths:
                raise ValueError(f"no test is named {pattern}")
            found += paths
        return [path for path in found if path not in (*_LEFT_OUT, *self.late)]


_LEFT_OUT = ("tests/sim/test_sim_transcripts.py", "tests/sim/test_sim_runs.py")
_QUORUM = (
    "tests/golden/test_versions_golden.py",
    "tests/property/test_v*.py",
    "tests/property/test_dot_rules_model.py",
    "tests/unit/test_node_*.py",
    "tests/unit/test_quorum_*.py",
    "tests/property/test_exchange.py",
    "tests/property/test_merkle.py",
    "tests/property/test_quarantine_parts.py",
    "tests/property/test_hedging.py",
    "tests/property/test_quorum_*.py",
    "tests/property/test_contexts.py",
    "tests/test_dynamo_paper.py",
    "tests/hostile/*.py",
    "tests/sim/test_sim_*.py",
)
_LSM = (
    "wal",
    "segments",
    "manifest",
    "engine",
    "recovery",
    "back_pressure",
    "maintenance",
    "compaction_scheduler",
    "table_set",
    "obsolete_files",
)
SUITES = (
    Suite(
        (
            "kvstore/versions.py",
            "kvstore/protocol/*.py",
            "kvstore/quorum/*.py",
            "kvstore/quorum/background/*.py",
            "kvstore/node/*.py",
        ),
        _QUORUM,
        ("tests/sim/test_sim_reaping.py",),
        10,
    ),
    Suite(
        tuple(f"kvstore/lsm/{name}.py" for name in _LSM),
        (
            "tests/golden/test_lsm_golden.py",
            "tests/unit/test_lsm_*.py",
            "tests/unit/test_store*.py",
            "tests/property/test_lsm_*.py",
            "tests/crash/test_lsm_*.py",
            "tests/sim/test_sim_disk_faults.py",
        ),
        ("tests/crash/test_lsm_crash_points.py", "tests/crash/test_lsm_error_injection.py"),
        10,
    ),
    Suite(
        (
            *("kvstore/lsm/commit.py", "kvstore/lsm/job_queue.py", "kvstore/store/worker_driver.py"),
            *("kvstore/server/sync_thread.py", "kvstore/server/jobs.py"),
        ),
        (
            "tests/property/test_lsm_commit.py",
            "tests/property/test_lsm_job_queue.py",
            "tests/property/test_worker_driver.py",
            "tests/unit/test_group_commit_faults.py",
            "tests/unit/test_server_*.py",
        ),
        (),
        0,
    ),
)


def mutated_files(root: Path, patterns: tuple[str, ...]) -> dict[str, Suite]:
    """Every file of a suite, or those of them that `patterns` name; raises ValueError if that is none."""
    found = {
        str(path.relative_to(root)): suite
        for suite in SUITES
        for pattern in suite.files
        for path in sorted(root.glob(pattern))
    }
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in found):
            raise ValueError(f"{pattern} is none of the files that have a suite (tools/mutants/suites.py)")
    return {
        name: suite
        for name, suite in found.items()
        if not patterns or any(fnmatch(name, pattern) for pattern in patterns)
    }
