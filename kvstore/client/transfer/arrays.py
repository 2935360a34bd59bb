"""A JSON array of objects, element by element: an array of any length in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from kvstore.client.transfer.objects import parse_object
from kvstore.client.transfer.records import BadLine, Record
from kvstore.config import Limits

_ELEMENT = "element"
_STRING_REST = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""What follows in a string, up to its end or to a backslash that ends the piece."""
_BETWEEN = re.compile(rb'(?:[^][{},"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
"""What has no bracket, no comma and no unfinished string, between elements."""
_WITHIN = re.compile(rb'(?:[^][{}"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
"""The same within an element, the commas of which matter to nobody here."""


def array_records(pieces: Iterable[bytes], key_field: str) -> Iterator[Record | BadLine]:
    """The record of each element, its text as it stands in the file; or what is wrong with it.

    Numbers are those of elements, from 1.
    """
    number = 0
    scanner = _Scanner()
    for piece in pieces:
        for text in scanner.feed(piece):
            number += 1
            yield _record(number, text, key_field)
    if not scanner.closed:
        yield BadLine(number + 1, "is cut off, or missing: the array has no end", _ELEMENT)
    elif scanner.more:
        yield BadLine(number + 1, "comes after the end of the array", _ELEMENT)


def _record(number: int, text: bytes, key_field: str) -> Record | BadLine:
    if len(text) > Limits.MAX_VALUE:
        return BadLine(number, f"has more than {Limits.MAX_VALUE:,} bytes", _ELEMENT)
    try:
        record = parse_object(number, text, key_field)
    except BadLine as error:
        return BadLine(number, error.reason, _ELEMENT)
    return replace(record, unit=_ELEMENT) if record else BadLine(number, "is empty", _ELEMENT)


class _Scanner:
    """Finds where elements end: by brackets and commas outside of strings. What they are, others check."""

    def __init__(self) -> None:
        self.closed = False
        """Whether the end of the array has been read."""
        self.more = False
        """Whether anything stands behind it."""
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._first = True
        self._element = bytearray()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The elements that end in the next piece of the file."""
        at = 0
        while at < len(piece):
            if self.closed:
                self.more |= bool(piece[at:].strip())
                return
            begun = at
            if self._in_string:
                at = self._string(piece, at)
                self._keep(piece[begun:at])
                continue
            at = (_WITHIN if self._depth > 1 else _BETWEEN).match(piece, at).end()  # type: ignore[union-attr]
            self._keep(piece[begun:at])
            mark = piece[at : at + 1]
            at += 1
            if self._ends_element(mark):
                element, self._element = bytes(self._element).strip(), bytearray()
                if element or mark == b"," or not self._first:
                    yield element
                self._first = False
            else:
                self._keep(mark)

    def _ends_element(self, mark: bytes) -> bool:
        """Follow a bracket, a comma or the begin of a string."""
        match mark:
            case b'"':
                self._in_string = True
            case b",":
                return self._depth == 1
            case b"[" | b"{":
                self._depth += 1
                return False
            case b"]" | b"}":
                self._depth -= 1
                self.closed = self._depth == 0
            case _:
                pass  # the end of the piece
        return self.closed

    def _string(self, piece: bytes, at: int) -> int:
        """Go on in a string: how far it goes in this piece."""
        found = _STRING_REST.match(piece, at + self._escaped)
        end = found.end() if found else len(piece)
        mark = piece[end : end + 1]
        self._in_string = mark != b'"'
        self._escaped = mark == b"\\"
        return end + len(mark)

    def _keep(self, part: bytes) -> None:
        """Add to the element, but the array's own bracket: no more of it than shows that it is too long."""
        if self._depth > 1 or part != b"[":
            self._element += part[: Limits.MAX_VALUE + 1 - len(self._element)]
