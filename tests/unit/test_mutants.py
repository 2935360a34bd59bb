"""The planting of small defects (`make mutants`): what is planted, what is noticed, what is remembered."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tools.mutants.changes import Change, changes
from tools.mutants.equivalents import as_equivalent, equivalents
from tools.mutants.reach import Reach
from tools.mutants.record import Record, digest_of
from tools.mutants.suites import SUITES, Suite, mutated_files
from tools.mutants.tracing import SEEDS
from tools.mutants.trial import Copy, Outcome, Result

ROOT = Path(__file__).resolve().parents[2]
SOURCE = '''"""Words, and 1 number."""

from __future__ import annotations

LARGEST = 64
Pair = int | str


class Counter:
    """A count."""

    __slots__ = ("count", "names")

    def __init__(self, count: int = 0) -> None:
        self.count: int = count
        assert count >= 0, f"{count + 1} is too small"

    def add(self, number: int | None) -> bool:
        if number is None or not number:
            raise ValueError(f"no {number + 1}")
        self.count += max(number, 2)
        self.log()
        return self.count < LARGEST
'''
PLANTED = [
    "LARGEST = 640",
    "def __init__(self, count: int = 1) -> None:",
    "pass",  # self.count: int = count
    "if (not (number is None or not number)):",
    "if number is not None or not number:",
    "if number is None and not number:",
    "if number is None or (number):",
    "pass",  # raise
    "pass",  # self.count += max(number, 2)
    "self.count -= max(number, 2)",
    "self.count += min(number, 2)",
    "self.count += max(number, 3)",
    "pass",  # self.log()
    "return None",
    "return self.count <= LARGEST",
]


def planted(path: Path, name: str) -> list[str]:
    source = path.read_bytes()
    return [as_equivalent(change, source).after for change in changes(path, name)]


def test_each_kind_of_defect_is_planted_and_nothing_in_types_words_or_assertions(tmp_path: Path) -> None:
    (tmp_path / "counter.py").write_text(SOURCE)
    assert sorted(planted(tmp_path / "counter.py", "counter.py")) == sorted(PLANTED)


def test_defects_of_every_file_are_programs_and_other_ones() -> None:
    for name in mutated_files(ROOT, ()):
        source = (ROOT / name).read_bytes()
        for change in changes(ROOT / name, name)[::25]:
            changed = change.apply(source)
            assert changed != source
            compile(changed, name, "exec")


def test_a_diff_shows_the_defect_in_its_place() -> None:
    change = Change("x.py", 16, 17, b"2")
    assert change.diff(b"a = 0\nb = 0\nc = 1\nd = 2\n").splitlines()[1:] == [
        " a = 0",
        " b = 0",
        "-c = 1",
        "+c = 2",
        " d = 2",
    ]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    shutil.copytree(ROOT / "tools", root / "tools")
    for directory in ("kvstore", "tests", "jepsen"):
        (root / directory).mkdir()
    (root / "pyproject.toml").write_text("")
    for name in ("__init__.py", "testing/__init__.py", "testing/plugin.py"):  # pytest loads the plugin
        (root / "kvstore" / name).parent.mkdir(exist_ok=True)
        (root / "kvstore" / name).write_text("")
    (root / "kvstore" / "versions.py").write_text(
        "def larger(a: int) -> int:\n    return a + 1\n\ndef unused() -> int:\n    return 5\n"
    )
    (root / "tests" / "test_counter.py").write_text(
        "from kvstore.versions import larger\n\ndef test_it_is_larger() -> None:\n    assert larger(0) > 0\n"
    )
    return root


SUITE = Suite(("kvstore/versions.py",), ("tests/test_*.py",), (), 0)


def test_a_defect_is_tried_against_the_tests_that_run_its_statement() -> None:
    source = b"A = 1\ndef f(a=2):\n    if (\n        a\n    ):\n"
    source += b"        return [\n            a\n        ]\n    return 3 + _B\n_B = 4\n"
    reach = Reach({"quick": 0.1, "slow": 2.0}, {"x.py": {3: ["slow"], 6: ["slow", "quick"], 9: [SEEDS]}})

    def of(text: bytes, after: int = 0) -> tuple[list[str], bool]:
        start = source.index(text, after)
        return reach.of(Change("x.py", start, start + 1, b"0"), source)

    assert of(b"1") == of(b"2") == (["quick", "slow"], True), "what is done at the import is done for all"
    assert of(b"a\n    )") == (["slow"], False)
    assert of(b"a\n        ]") == (["quick", "slow"], False)
    assert of(b"3") == of(b"4") == ([], True), "a private name of the module changes those who use it"


def test_what_breaks_a_test_is_killed_by_it_and_what_does_not_survives(project: Path, tmp_path: Path) -> None:
    copy = Copy(project, tmp_path / "copy")
    reach = copy.baseline(SUITE)
    outcomes = {}
    for change in changes(project / "kvstore" / "versions.py", "kvstore/versions.py"):
        result = copy.trial(change, SUITE, reach)
        outcomes[change.text] = (result.outcome, result.by)
    assert outcomes == {
        b"None": (Outcome.KILLED, "tests/test_counter.py::test_it_is_larger"),
        b"-": (Outcome.KILLED, "tests/test_counter.py::test_it_is_larger"),
        b"2": (Outcome.SURVIVED, ""),
        b"6": (Outcome.SURVIVED, ""),
    }
    assert (project / "kvstore" / "versions.py").read_bytes().endswith(b"return 5\n")


def test_tests_that_fail_by_themselves_prove_nothing(project: Path, tmp_path: Path) -> None:
    (project / "tests" / "test_counter.py").write_text("def test_it() -> None:\n    assert False\n")
    with pytest.raises(RuntimeError, match=r"fail without any defect: tests/test_counter\.py::test_it"):
        Copy(project, tmp_path / "copy").baseline(SUITE)


def test_a_run_goes_on_where_it_was_until_a_source_or_a_test_changes(project: Path, tmp_path: Path) -> None:
    change, result = Change("kvstore/versions.py", 3, 5, b"x"), Result(Outcome.KILLED, "a test", 1.5)
    path = tmp_path / "records" / "seed-1.jsonl"
    Record(path, digest_of(project)).add(change, result)
    assert Record(path, digest_of(project)).results == {change: result}
    (project / "tests" / "test_counter.py").write_text("")
    assert Record(path, digest_of(project)).results == {}


def test_every_equivalent_is_one_of_the_defects_and_has_a_reason() -> None:
    known = equivalents(ROOT)
    assert all(reason.strip() for reason in known.values())
    for path in {equivalent.path for equivalent in known}:
        source = (ROOT / path).read_bytes()
        possible = {as_equivalent(change, source) for change in changes(ROOT / path, path)}
        assert {equivalent for equivalent in known if equivalent.path == path} <= possible


def test_every_suite_has_tests() -> None:
    for suite in SUITES:
        assert suite.paths(ROOT)
        assert all((ROOT / path).exists() for path in suite.late)
    with pytest.raises(ValueError, match="none of the files"):
        mutated_files(ROOT, ("kvstore/nothing.py",))
