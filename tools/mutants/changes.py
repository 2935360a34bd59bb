"""All the small defects that can be planted in a source file, as replacements of a part of its text.

The operators are those in use since Offutt et al., "An Experimental Determination of Sufficient Mutant
Operators" (ACM TOSEM 5(2), 1996): relations, connectors, arithmetic, constants; and, as defects of omission
are the ones that break a promise of a database, statements that are left out.
"""

from __future__ import annotations

import ast
import difflib
from dataclasses import dataclass
from pathlib import Path

_RELATIONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
_ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "//"),
    ast.FloorDiv: ("//", "*"),
    ast.Div: ("/", "*"),
    ast.Mod: ("%", "*"),
    ast.BitOr: ("|", "&"),
    ast.BitAnd: ("&", "|"),
    ast.BitXor: ("^", "&"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
}
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


@dataclass(frozen=True, slots=True)
class Change:
    """The bytes of `path` from `start` to `end` become `text`."""

    path: str
    start: int
    end: int
    text: bytes

    def apply(self, source: bytes) -> bytes:
        """The source with the defect."""
        return source[: self.start] + self.text + source[self.end :]

    def diff(self, source: bytes) -> str:
        """The defect as a unified diff without headers."""
        old, new = source.decode().splitlines(), self.apply(source).decode().splitlines()
        lines = list(difflib.unified_diff(old, new, n=2, lineterm=""))
        return "\n".join(lines[2:])

    def line(self, source: bytes) -> int:
        """The number of the line where it begins."""
        return source.count(b"\n", 0, self.start) + 1


def changes(path: Path, name: str) -> list[Change]:
    """Every defect for one file, in the order of the text, none of them twice."""
    source = path.read_bytes()
    finder = _Finder(source, name)
    finder.visit(ast.parse(source))
    return sorted(set(finder.found), key=lambda change: (change.start, change.end, change.text))


class _Finder(ast.NodeVisitor):
    """Leaves out what no test could notice: annotations, decorators, docstrings, assertions, `__repr__`."""

    def __init__(self, source: bytes, name: str) -> None:
        self.found: list[Change] = []
        self._source = source
        self._name = name
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self._inside: list[ast.FunctionDef | ast.AsyncFunctionDef] = []

    # places

    def _start(self, node: ast.expr | ast.stmt) -> int:
        return self._lines[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._lines[node.end_lineno - 1] + node.end_col_offset

    def _replace(self, node: ast.expr | ast.stmt, text: str) -> None:
        self.found.append(Change(self._name, self._start(node), self._end(node), text.encode()))

    def _between(self, left: ast.expr, right: ast.expr, old: str, new: str) -> None:
        """Replace an operator, which has no place of its own in the tree."""
        begin, end = self._end(left), self._start(right)
        at = self._source.find(old.encode(), begin, end)
        if at >= 0:
            self.found.append(Change(self._name, at, at + len(old), new.encode()))

    def _text(self, node: ast.expr) -> str:
        return self._source[self._start(node) : self._end(node)].decode()

    def _negate(self, test: ast.expr) -> None:
        """The other branch is taken; a relation with one opposite has that defect already."""
        opposite = isinstance(test, ast.Compare) and not isinstance(test.ops[0], _ORDERED)
        if opposite or isinstance(test, ast.UnaryOp) or self._is_type_checking(test):
            return
        self._replace(test, f"(not ({self._text(test)}))")

    @staticmethod
    def _is_type_checking(test: ast.expr) -> bool:
        return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"

    # what is not looked at

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Words for people."""

    def visit_Assert(self, node: ast.Assert) -> None:
        """For readers and the type checker."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Only the value."""
        if node.value is not None:
            self.visit(node.value)
            if not isinstance(node.target, ast.Name):
                self._replace(node, "pass")

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Only the body."""
        for statement in node.body:
            self.visit(statement)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Defaults and body."""
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """Defaults and body."""
        self._function(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if node.name == "__repr__":
            return
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        self._inside.append(node)
        for statement in node.body:
            self.visit(statement)
        self._inside.pop()

    # statements

    def visit_Expr(self, node: ast.Expr) -> None:
        """A call is left out; a docstring is none."""
        if isinstance(node.value, ast.Constant):
            return
        if not isinstance(node.value, ast.Yield | ast.YieldFrom):
            self._replace(node, "pass")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        """What others see of an object is not changed."""
        if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self._replace(node, "pass")
        if not any(isinstance(target, ast.Name) and target.id == "__slots__" for target in node.targets):
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Nothing is added, or the wrong way."""
        self._replace(node, "pass")
        old, new = _ARITHMETIC.get(type(node.op), ("", ""))
        if old:
            self._between(node.target, node.value, old, new)
        self.visit(node.value)

    def visit_Delete(self, node: ast.Delete) -> None:
        """It stays."""
        self._replace(node, "pass")

    def visit_Raise(self, node: ast.Raise) -> None:
        """Nothing is refused."""
        self._replace(node, "pass")

    def visit_Return(self, node: ast.Return) -> None:
        """Nothing is returned."""
        if node.value is None:
            return
        if not isinstance(node.value, ast.Constant):
            self._replace(node.value, "None")
        self.visit(node.value)

    def visit_Break(self, node: ast.Break) -> None:
        """The loop goes on."""
        self._replace(node, "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        """The loop ends."""
        self._replace(node, "break")

    def visit_If(self, node: ast.If) -> None:
        """The other branch."""
        self._negate(node.test)
        if not self._is_type_checking(node.test):
            self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        """The other way about."""
        if not isinstance(node.test, ast.Constant):
            self._negate(node.test)
        self.generic_visit(node)

    # expressions

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """The other value."""
        self._negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """Those that were left out."""
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Limits are off by one; equal is different."""
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            self._between(left, right, *_RELATIONS[type(operator)])
            left = right
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """One is enough, or all are needed."""
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between(left, right, old, new)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """Not negated."""
        if isinstance(node.op, ast.Not):
            self._replace(node, f"({self._text(node.operand)})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Another operation; outside functions `|` makes a type."""
        old, new = _ARITHMETIC.get(type(node.op), ("", ""))
        if old and (self._inside or old != "|"):
            self._between(node.left, node.right, old, new)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """One more; a setting of a module is ten times as large, as the exact value seldom is a promise."""
        value = node.value
        if isinstance(value, bool):
            self._replace(node, str(not value))
        elif isinstance(value, int | float):
            self._replace(node, str(value + 1 if self._inside or not value else value * 10))

    def visit_Call(self, node: ast.Call) -> None:
        """The other end of an order."""
        if isinstance(node.func, ast.Name) and node.func.id in _CALLS:
            self._replace(node.func, _CALLS[node.func.id])
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Only what it is taken from."""
        self.visit(node.value)
