"""`python -m tools.tables`: write the tables in docs/ that are made from declarations in the source.

Such a table stands between a line `<!-- NAME: ... -->` and a line `<!-- end -->`. A test sees that it is
current.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from kvstore.bounds import settings_of
from kvstore.node.status import MemberStatus, NodeStatus
from kvstore.quorum.counters import TOPICS, Counters
from kvstore.server.settings_file import TABLES as SETTINGS
from tests.hostile import boundary_checks

DOCS = Path(__file__).resolve().parents[1] / "docs"


def field_docs(kind: type) -> dict[str, str]:
    """What stands under each field of a class, or of its bases, as a string: its documentation."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(node, ast.ClassDef)
        for field, after in zip(node.body, node.body[1:], strict=False):
            match field, after:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
                case _:
                    pass
    return found


def counters() -> Iterator[str]:
    """Every counter, by topic."""
    docs = field_docs(Counters)
    yield "| topic | counter | events |"
    yield "|---|---|---|"
    for topic, names in TOPICS.items():
        for place, name in enumerate(names):
            yield f"| {'' if place else topic} | `{name}` | {docs[name]} |"


def status() -> Iterator[str]:
    """Every field of what a node tells of itself, and of a member as it sees it."""
    yield "| field | type | meaning |"
    yield "|---|---|---|"
    for kind, prefix in ((NodeStatus, "."), (MemberStatus, ".members[i].")):
        docs = field_docs(kind)
        for field in fields(kind):
            yield f"| `{prefix}{field.name}` | `{field.type}` | {docs[field.name]} |"


def _settings(kind: type[Any]) -> Iterator[str]:
    """Every setting of a table of kvnode's file."""
    docs = field_docs(kind)
    yield f"| in `[{kind.TABLE}]` | default | may be | meaning |"
    yield "|---|---|---|---|"
    for each in settings_of(kind):
        default = f"{each.default:.16g}"
        yield f"| `{each.label}` | {default} | {each.bounds} | {docs[each.name]} |"


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "counters": counters,
    "status": status,
    "planted-boundary": boundary_checks.table,
    **{kind.TABLE: partial(_settings, kind) for kind in SETTINGS},
}


def filled(text: str) -> str:
    """A page with its tables as they should be now."""
    return re.sub(r"^<!-- ([\w-]+): .* -->\n(?:.*\n)*?<!-- end -->$", _table, text, flags=re.MULTILINE)


def _table(found: re.Match[str]) -> str:
    begin = found[0].partition("\n")[0]
    return "\n".join([begin, "", *TABLES[found[1]](), "", "<!-- end -->"])


def main() -> None:
    """Write every page whose tables are not current."""
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text()
        if filled(text) != text:
            page.write_text(filled(text))
            print(f"wrote {page.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    main()
