"""From what a caller passes to a request: defaults filled in, everything checked that a node need not see.

What is wrong here is refused before anything is sent, so that it cannot break the stream that all
calls to a node share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

from kvstore.client.results import Key, Resolver
from kvstore.config import Limits, QuorumMode
from kvstore.errors import InvalidRequest
from kvstore.protocol.client import Delete, Get, Put
from kvstore.protocol.scan import Scan
from kvstore.versions import BucketName, SignedContext, UserKey

_LIMITS = Limits(value=Limits.MAX_VALUE)
_MAX_COUNT = 255
_MAX_TTL = 2**32 - 1
_MAX_TIMEOUT = 86_400.0
TimeToLive = int | timedelta
"""How long a value lives: a number of seconds, or a timedelta of whole ones."""

F = TypeVar("F")

_MODES = {"strict": QuorumMode.STRICT, "sloppy": QuorumMode.SLOPPY}


@dataclass(frozen=True, slots=True)
class Requests:
    """Builds the requests of one bucket. Its fields are the defaults of each call."""

    bucket: BucketName
    timeout: float
    r: int = 0
    w: int = 0
    quorum: QuorumMode | None = None
    resolver: Resolver[Any] | None = None

    def get(
        self, key: Key, r: int | None, quorum: str | None, timeout: float | None, explain: bool = False
    ) -> Get:
        """A read."""
        return Get(
            self.bucket,
            key_bytes(key),
            self.r if r is None else count("r", r),
            self.quorum if quorum is None else mode(quorum),
            self.timeout if timeout is None else seconds(timeout),
            bool(explain),
        )

    def put(
        self,
        key: UserKey,
        value: str | bytes,
        context: bytes,
        content_type: str,
        ttl: TimeToLive | None,
        w: int | None,
        quorum: str | None,
        timeout: float | None,
        explain: bool = False,
    ) -> Put:
        """A write."""
        return Put(
            self.bucket,
            key,
            _value_bytes(value),
            _context(context),
            content_type if content_type == "" else _content_type(content_type),
            0 if ttl is None else _whole_seconds(ttl),
            self.w if w is None else count("w", w),
            self.quorum if quorum is None else mode(quorum),
            self.timeout if timeout is None else seconds(timeout),
            bool(explain),
        )

    def delete(
        self,
        key: Key,
        context: bytes,
        r: int | None,
        w: int | None,
        quorum: str | None,
        timeout: float | None,
        explain: bool = False,
    ) -> Delete:
        """A delete."""
        return Delete(
            self.bucket,
            key_bytes(key),
            _context(context),
            self.r if r is None else count("r", r),
            self.w if w is None else count("w", w),
            self.quorum if quorum is None else mode(quorum),
            self.timeout if timeout is None else seconds(timeout),
            bool(explain),
        )

    def scan(
        self,
        cursor: bytes,
        until: bytes,
        prefix: Key,
        limit: int | None,
        values: bool,
        timeout: float | None,
    ) -> Scan:
        """A page of keys."""
        for field, place in (("cursor", cursor), ("until", until)):
            if not isinstance(place, bytes):
                raise InvalidRequest(field, f"must be the bytes of a .next, not {type(place).__name__}")
        return Scan(
            self.bucket,
            cursor,
            _encode_key("prefix", prefix),
            0 if limit is None else whole_number("limit", limit, Limits.scan_keys),
            bool(values),
            self.w,
            self.timeout if timeout is None else seconds(timeout),
            until,
        )


def requests_for(
    bucket: str,
    r: int | None,
    w: int | None,
    quorum: str | None,
    timeout: float,
    resolver: Resolver[Any] | None,
) -> Requests:
    """The requests of a bucket with these defaults; raises InvalidRequest."""
    _LIMITS.check_bucket(_text("bucket", bucket))
    return Requests(
        BucketName(bucket),
        seconds(timeout),
        0 if r is None else count("r", r),
        0 if w is None else count("w", w),
        None if quorum is None else mode(quorum),
        None if resolver is None else function("resolver", resolver),
    )


def key_bytes(key: Key) -> UserKey:
    """The bytes of a key; raises InvalidRequest."""
    encoded = _encode_key("key", key)
    _LIMITS.check_key(encoded)
    return encoded


def count(field: str, number: object) -> int:
    """A number of replicas; raises InvalidRequest. The bucket's n is the node's to check."""
    return whole_number(field, number, _MAX_COUNT)


def function(field: str, given: F) -> F:
    """What can be called; raises InvalidRequest."""
    if not callable(given):
        raise InvalidRequest(field, f"must be a function, not {type(given).__name__}")
    return given


def mode(quorum: object) -> QuorumMode:
    """A quorum mode by its name; raises InvalidRequest."""
    if not isinstance(quorum, str) or quorum not in _MODES:
        raise InvalidRequest("quorum", f"{quorum!r} is not one of {'|'.join(_MODES)}")
    return _MODES[quorum]


def seconds(timeout: object) -> float:
    """A timeout in seconds; raises InvalidRequest."""
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= _MAX_TIMEOUT:
        most = f"{_MAX_TIMEOUT:g}"
        raise InvalidRequest("timeout", f"{timeout!r} is not a number of seconds above 0 up to {most}")
    return float(timeout)


def _encode(field: str, data: str | bytes) -> bytes:
    if type(data) is bytes:
        return data
    if isinstance(data, str):
        try:
            return data.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(field, f"is not valid text: {error.reason}") from None
    if isinstance(data, bytes):
        return bytes(data)
    raise InvalidRequest(field, f"must be str or bytes, not {type(data).__name__}")


_encode_key = cast("Callable[[str, Key], UserKey]", _encode)
"""Its type is told here, once: a call of UserKey would cost every request."""


def _value_bytes(value: object) -> bytes:
    if type(value) is bytes:
        encoded = value
    else:
        encoded = _encode("value", value) if isinstance(value, (str, bytes)) else _buffer(value)
    _LIMITS.check_value(encoded)
    return encoded


def _buffer(value: object) -> bytes:
    if isinstance(value, bytearray | memoryview):  # it may be used again: this is what it holds now
        return bytes(value)
    raise InvalidRequest(
        "value",
        f"must be str or bytes, not {type(value).__name__}; "
        'db.bucket(name, serializer="json") takes what JSON can hold',
    )


def _checked_context(context: bytes) -> bytes:
    if not isinstance(context, bytes):
        raise InvalidRequest("context", f"must be the bytes of a .context, not {type(context).__name__}")
    return context


_context = cast("Callable[[bytes], SignedContext]", _checked_context)
"""As `_encode_key`."""


def _text(field: str, text: str) -> str:
    if not isinstance(text, str):
        raise InvalidRequest(field, f"must be str, not {type(text).__name__}")
    _encode(field, text)
    return text


def _content_type(text: str) -> str:
    _LIMITS.check_content_type(_text("content_type", text))
    return text


def _whole_seconds(ttl: TimeToLive) -> int:
    if isinstance(ttl, timedelta):
        whole, rest = divmod(ttl, timedelta(seconds=1))
        if rest:
            raise InvalidRequest("ttl", f"is {ttl}, must be whole seconds")
        ttl = whole
    return whole_number("ttl", ttl, _MAX_TTL)


def whole_number(field: str, number: object, limit: int) -> int:
    """A number from 1 to `limit`; raises InvalidRequest."""
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= limit:
        raise InvalidRequest(field, f"is {number!r}, must be a whole number from 1 to {limit}")
    return number
