"""JSON Lines of other programs: an object a line, its key in one of its fields, the line itself the value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import NoReturn

from kvstore.client.transfer.records import BadLine, Held, Record, Written
from kvstore.config import Limits

CONTENT_TYPE = "application/json"

_TOO_DEEP = "is nested too deeply"
_DIGITS = 4000
_SHALLOW = 500
"""Brackets that can be nested in each other without anyone's giving up."""


def object_records(lines: Iterable[bytes], key_field: str) -> Iterator[Record | BadLine]:
    """The record of each line that is not empty, or what is wrong with it."""
    for number, line in enumerate(lines, 1):
        try:
            record = parse_object(number, line, key_field)
        except BadLine as error:
            yield error
        else:
            if record is not None:
                yield record


def parse_object(number: int, line: bytes, key_field: str) -> Record | None:
    """The record of a line, None for an empty one; raises BadLine."""
    if len(line) > Limits.MAX_VALUE:  # before it is parsed, for which it may need 30 times its bytes
        raise BadLine(number, f"value: has more than {Limits.MAX_VALUE:,} bytes")
    text = line.strip()
    if not text:
        return None
    found = _parse(number, text)
    if not isinstance(found, dict):
        raise BadLine(number, "is not a JSON object")
    key = _key(number, found, key_field)
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise BadLine(number, f"field {key_field!r} is neither text nor a whole number")
    try:
        record = Record(number, str(key).encode(), (Held(text, CONTENT_TYPE),))
    except UnicodeEncodeError as error:
        raise BadLine(number, f"field {key_field!r}: {error.reason}") from None
    record.check()
    return record


def _key(number: int, found: dict[str, object], path: str) -> object:
    """What stands in a field: that of just this name, else a.b is b of the object in a."""
    if path in found:
        return found[path]
    place: object = found
    for name in path.split("."):
        if not isinstance(place, dict) or name not in place:
            raise BadLine(number, f"has no field {path!r}")
        place = place[name]
    return place


def _parse(number: int, text: bytes) -> object:
    try:
        return _decode(text.decode())
    except UnicodeDecodeError:
        raise BadLine(number, "is not UTF-8") from None
    except json.JSONDecodeError as error:
        if error.pos >= len(error.doc) or error.doc in ("{", "["):
            raise BadLine(number, "is not JSON: ends too early; one line is one whole object") from None
        raise BadLine(number, f"is not JSON: {error}") from None
    except _NoValue as error:
        raise BadLine(number, f"is not JSON: {error}") from None
    except RecursionError:
        raise BadLine(number, _TOO_DEEP) from None


class _NoValue(ValueError):
    """A word that Python's own reader would take."""


def _refuse(constant: str) -> NoReturn:
    """NaN, Infinity and -Infinity."""
    raise _NoValue(f"{constant} is no JSON value")


def _whole(digits: str) -> int | str:
    """A number; one that Python does not read for its length, as it stands there: nobody calculates here."""
    return int(digits) if len(digits) <= _DIGITS else digits


_decode = json.JSONDecoder(parse_constant=_refuse, parse_int=_whole).decode


def object_line(found: Written) -> bytes | None:
    """The value of a key as a line; None if it is no single JSON object that others can read."""
    if len(found.siblings) != 1:
        return None
    value = found.siblings[0].value
    try:
        if not isinstance(_parse(0, value), dict):
            return None
    except BadLine:
        return None
    # JSON has line breaks only outside of strings, where they are mere space
    return value.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"


def is_too_deep(value: bytes) -> bool:
    """Whether a value is JSON that readers such as Python's give up on; as far as they have read by then."""
    if value.count(b"{") + value.count(b"[") <= _SHALLOW:
        return False
    try:
        _parse(0, value)
    except BadLine as error:
        return error.reason == _TOO_DEEP
    return False
