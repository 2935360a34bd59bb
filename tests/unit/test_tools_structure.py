"""tools/structure on small trees: what is a use, circles, what a class holds, what exceeds a bound."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools.structure import report
from tools.structure.classes import Class, classes
from tools.structure.cycles import cycles
from tools.structure.imports import users, uses
from tools.structure.report import sections
from tools.structure.sizes import Sizes, file_sizes, function_sizes
from tools.structure.source import Module, read_package


def package(directory: Path, **files: str) -> dict[str, Module]:
    """A package `p` of these files; two underscores in a name stand for a slash."""
    for name, text in {"": "", **files}.items():
        path = directory / "p" / name.replace("__", "/") / "__init__.py"
        if name and not any(other.startswith(f"{name}__") for other in files):
            path = path.parent.with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_package(directory / "p")


def only_class(directory: Path, text: str) -> Class:
    (found,) = classes(package(directory, a=text)["p.a"])
    return found


@pytest.mark.parametrize(
    "text",
    [
        "import p.b",
        "import p.b as c",
        "from p import b",
        "from p.b import x",
        "from p.b import *",
        "from . import b",
        "from .b import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.b import x",
        "def f():\n    from p.b import x",
        "try:\n    import p.b\nexcept ImportError:\n    pass",
    ],
)
def test_every_form_of_import_is_a_use(tmp_path: Path, text: str) -> None:
    assert uses(package(tmp_path, a=text, b="x = 1"))["p.a"] == {"p.b"}


def test_what_is_outside_and_what_a_module_imports_of_itself_is_no_use(tmp_path: Path) -> None:
    assert uses(package(tmp_path, a="import os\nfrom p.a import x\nx = 1"))["p.a"] == set()


def test_a_name_of_a_package_is_a_use_of_the_module_that_defines_it(tmp_path: Path) -> None:
    modules = package(
        tmp_path,
        a="from p.q import Thing, own",
        q="from p.q.r import Thing\nown = 1",
        q__r="from p.q.s import Other as Thing",
        q__s="class Other: ...",
    )
    # q hands on what r defines as far as this can be seen: r is no package, so the search ends there
    assert uses(modules)["p.a"] == {"p.q.r", "p.q"}


def test_packages_that_hand_on_to_each_other_are_followed(tmp_path: Path) -> None:
    modules = package(
        tmp_path,
        a="from p.q import Thing",
        q="from .s import Thing",
        q__s="from .t import Thing",
        q__s__t="class Thing: ...",
    )
    assert uses(modules)["p.a"] == {"p.q.s.t"}


def test_a_name_that_packages_hand_round_in_a_circle_ends(tmp_path: Path) -> None:
    modules = package(
        tmp_path, a="from p.q import x", q="from p.r import x", q__m="", r="from p.q import x", r__m=""
    )
    assert uses(modules)["p.a"] <= {"p.q", "p.r"}


def test_a_package_uses_only_what_it_reads_itself(tmp_path: Path) -> None:
    modules = package(tmp_path, q="from p.q.r import f, g\nx = g()", q__r="", q__s="from p.q import f")
    graph = uses(modules)
    assert graph["p.q"] == {"p.q.r"}
    assert users(graph)["p.q.r"] == {"p.q", "p.q.s"}
    (tmp_path / "p" / "q" / "__init__.py").write_text("from p.q.r import f, g")
    assert uses(read_package(tmp_path / "p"))["p.q"] == set()


def test_circles_are_named_once_and_by_the_shortest_way() -> None:
    graph = {
        "a": {"b", "c"},
        "b": {"c"},
        "c": {"a"},
        "d": {"a"},
        "x": {"y"},
        "y": {"x"},
        "alone": set[str](),
    }
    assert cycles(graph) == [["a", "b", "c", "a"], ["a", "c", "a"], ["x", "y", "x"]]
    assert cycles({"a": {"b"}, "b": set()}) == []


def test_a_circle_through_imports_for_types_is_found(tmp_path: Path) -> None:
    types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import A"
    modules = package(tmp_path, a="from p.b import B\nclass A: ...", b=f"{types}\nclass B: ...")
    assert cycles(uses(modules)) == [["p.a", "p.b", "p.a"]]


@pytest.mark.parametrize(
    ("body", "attributes"),
    [
        ("x: int\n  y: int = 0", {"x", "y"}),
        ("N: ClassVar[int] = 1\n  LIMIT = 2\n  x: int", {"x"}),
        ("__slots__ = ('x', 'y')", {"x", "y"}),
        ("__slots__ = 'x'", {"x"}),
        ("def __init__(self):\n    self.x = self.y = 1\n    self.z: int\n    self.x += 1", {"x", "y", "z"}),
        ("async def f(this, other):\n    this.x, other.y = 1, 2\n    this.a.b = 3\n    this.c[0] = 4", {"x"}),
        ("__slots__ = ('x',)\n  def __init__(self):\n    self.x = 1", {"x"}),
        ("@classmethod\n  def f(cls):\n    cls.x = 1\n  @staticmethod\n  def g(a):\n    a.x = 1", set()),
        ("def f():\n    pass", set()),
    ],
)
def test_attributes_of_a_class(tmp_path: Path, body: str, attributes: set[str]) -> None:
    assert only_class(tmp_path, f"class A:\n  {body}").attributes == attributes


def test_methods_of_one_name_count_once(tmp_path: Path) -> None:
    setter = "  @x.setter\n  def x(self, y): ...\n"
    text = f"class A:\n  @property\n  def x(self): ...\n{setter}  async def f(self): ..."
    assert only_class(tmp_path, text).methods == {"x", "f"}


def test_sizes_of_files_and_functions(tmp_path: Path) -> None:
    modules = package(tmp_path, a="x = 1\n" * 10, b="def f():\n  def g():\n    pass\n\n  return g\n").values()
    assert file_sizes(modules) == Sizes(3, 5, 10, 10, "p.a")
    assert function_sizes(modules) == Sizes(2, 3.5, 5, 5, "p.b.f")
    assert function_sizes([]) == Sizes(0, 0, 0, 0, "")


def test_each_bound_is_reported_when_it_is_exceeded_and_only_then(tmp_path: Path) -> None:
    files = {f"user{number}": "from p.ring import x\nfrom p.errors import E" for number in range(10)}
    files |= {"ring": "x = 1", "errors": "class E(Exception): ...\n" * 91}
    files["big"] = "class Big:\n" + "  def f(self): ...\n" + "".join(f"  a{n}: int\n" for n in range(20))
    assert [s.exceeded for s in sections("p", package(tmp_path, **files))] == [()] * 5
    (tmp_path / "p" / "user10.py").write_text("from p import ring")
    (tmp_path / "p" / "big.py").write_text(files["big"] + "  a20: int\n" + "def f():\n" + "  pass\n" * 44)
    (tmp_path / "p" / "ring.py").write_text("from p import user0\nx = 1")
    circles, used, held, file_lines, function_lines = sections("p", read_package(tmp_path / "p"))
    assert circles.exceeded == ("p.ring -> p.user0 -> p.ring",)
    assert used.exceeded == ("p.ring is used by 11, 0 of the core",)
    assert held.exceeded == ("p.big.Big: 21 attributes, 1 methods",)
    assert file_lines.exceeded == ()
    assert function_lines.exceeded == ("median 23 is over 5", "p90 45 is over 16", "longest 45 is over 44")


def test_what_a_package_speaks_in_any_number_may_use(tmp_path: Path) -> None:
    shared = "from p.config import C\nfrom p.protocol.instant import I\nfrom p.lsm.config import O"
    files = {f"user{number}": f"{shared}\nfrom p.lsm.messages import J" for number in range(11)}
    files |= {"config": "", "protocol__instant": "", "lsm__config": "", "lsm__messages": "", "lsm__job": ""}
    assert sections("p", package(tmp_path, **files))[1].exceeded == ()
    for number in range(11):
        (tmp_path / "p" / f"user{number}.py").write_text("from p.lsm.job import J")
    used = sections("p", read_package(tmp_path / "p"))[1].exceeded
    assert used == ("p.lsm.job is used by 11, 0 of the core",)


def test_what_is_as_large_as_its_bound_is_not_over_it(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("def f():\n" + "  pass\n" * 4 + "\n" * 86)
    module = Module("p", tmp_path / "p.py", 91, ast.parse((tmp_path / "p.py").read_text()))
    assert [s.exceeded for s in sections("p", {"p": module})] == [()] * 5


def test_generated_subpackages_are_left_out(tmp_path: Path) -> None:
    package(tmp_path, a="", v1="", v1__pb="", v12="")
    assert set(read_package(tmp_path / "p", without=("p.v1",))) == {"p", "p.a", "p.v12"}


def test_the_core_is_where_the_report_looks_for_it() -> None:
    modules = read_package(Path(__file__).resolve().parents[2] / "kvstore", without=("kvstore.v1",))
    assert len(modules) > 100
    named = (*report.CORE, *report.CORE_SETTINGS, *report.SHARED)
    assert {f"kvstore.{part}" for part in named} <= set(modules)
