"""Functions made from the fields of messages, as quick as if they were written by hand.

A loop over the fields of a message costs two to three times the code that names them, and every request makes
a dozen messages: so that code is written here by the program, once at its start, as dataclasses have it done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def function(name: str, arguments: str, lines: Iterable[str], names: Mapping[str, object]) -> Any:
    """The function with this body, in which `names` are known."""
    body = "".join(f"    {line}\n" for line in lines)
    known = dict(names)
    exec(compile(f"def {name}({arguments}):\n{body}", f"<derived {name}>", "exec"), known)
    return known[name]
