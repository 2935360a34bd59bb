"""How one check is taken out of the running program, and nothing else of it.

A function gets code in which the condition of the check never holds. Its code is replaced and not its name:
whoever holds the function already, as the functions that kvstore.protocol.derive has written do, is without
the check too.
"""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Callable
from functools import cache
from types import CodeType, GenericAlias
from typing import Any, NamedTuple

import msgspec
import pytest

from kvstore import contexts, versions
from kvstore.lsm import manifest
from kvstore.lsm.messages import TableInfo
from kvstore.versions import Dot, Sibling, Version
from kvstore.wire import codec, peer

Plant = Callable[[pytest.MonkeyPatch], None]


Row = tuple[str, Plant, str]
"""The name of a check, what takes it out, and the test that must fail then."""


class Check(NamedTuple):
    """One check of the boundary, what takes it out, and the test that must fail then."""

    topic: str
    name: str
    plant: Plant
    test: str


def without(function: Callable[..., Any], text: str, instead: str = "False") -> Plant:
    """Give a function `instead` where its source has `text`; raises LookupError unless it has it once."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(function, "__code__", _changed(function, text, instead))

    return plant


def _changed(function: Callable[..., Any], text: str, instead: str) -> CodeType:
    source = _replaced(function, text, instead)
    module = compile(source, "<planted>", "exec", __future__.annotations.compiler_flag, dont_inherit=True)
    name = function.__name__
    (code,) = (c for c in module.co_consts if isinstance(c, CodeType) and c.co_name == name)
    return code


def _replaced(kind: Any, text: str, instead: str) -> str:
    source = textwrap.dedent(inspect.getsource(kind))
    if source.count(text) != 1:
        raise LookupError(f"{kind.__qualname__} has {text!r} {source.count(text)} times")
    return source.replace(text, instead)


def constant(module: Any, name: str, value: Any) -> Plant:
    """Let a bound be another one."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        assert getattr(module, name) != value
        patch.setattr(module, name, value)

    return plant


def unbounded(kind: type, text: str, instead: str = "") -> Plant:
    """Let Dot or Sibling be read by a type without the bound `text`."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        names = dict(vars(versions))
        for each in (Dot, Sibling, Version):
            source = _replaced(each, text, instead) if each is kind else inspect.getsource(each)
            exec(compile(source, "<planted>", "exec", dont_inherit=True), names)
            names["CausalContext"] = GenericAlias(tuple, (names["Dot"], ...))
        patch.setattr(versions, "_decoder", _Loose(names["Version"], _version))
        patch.setattr(contexts, "_decoder", _Loose(names["CausalContext"], _context))

    return plant


class _Loose:
    """Decodes by another type than the one that it makes."""

    def __init__(self, kind: Any, make: Callable[[Any], Any]) -> None:
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._make = make

    def decode(self, data: bytes) -> Any:
        return self._make(self._decoder.decode(data))


def _context(dots: tuple[Any, ...]) -> tuple[Dot, ...]:
    return tuple(Dot(*dot) for dot in dots)


def _version(found: Any) -> Version:
    siblings = (Sibling(Dot(*s.dot), s.value, s.time, s.expiry, s.content_type) for s in found.siblings)
    return Version(_context(found.context), tuple(siblings))


def manifest_unbounded(patch: pytest.MonkeyPatch) -> None:
    """Let the numbers of a manifest be any."""
    edit = tuple[int, int, list[tuple[int, int, int, int, int, bytes, bytes, int]], list[int]]

    def make(found: Any) -> manifest.Edit:
        next_file, flushed_lsn, added, removed = found
        return manifest.Edit(next_file, flushed_lsn, tuple(TableInfo(*t) for t in added), tuple(removed))

    patch.setattr(manifest, "_decoder", _Loose(edit, make))


def incarnations_unbounded(patch: pytest.MonkeyPatch) -> None:
    """Let the functions that read frames be written anew without a bound for numbers."""
    patch.setattr(codec, "_MOST", {})
    patch.setattr(codec, "codec_of", cache(codec.codec_of.__wrapped__))
    patch.setattr(peer, "_READ", peer._codecs()[1])
