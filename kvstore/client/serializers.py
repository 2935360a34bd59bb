"""What the values of a bucket are for its program: bytes, or what a serializer makes of them."""

from __future__ import annotations

import json
from typing import Any, Literal, Protocol

import msgspec

from kvstore.client.results import Sibling, Undecodable, UndecodableValue, V
from kvstore.errors import InvalidRequest
from kvstore.protocol.client import Value

SerializerName = Literal["json", "msgpack"]


class Serializer(Protocol[V]):
    """Values to bytes and back: an object, or a module such as `json` or `pickle`.

    What either raises becomes an error of kvstore: InvalidRequest, or UndecodableValue.
    """

    def dumps(self, value: V, /) -> bytes | str:
        """What is stored."""

    def loads(self, data: bytes, /) -> V:
        """The value again."""


class Json:
    """Compact JSON in UTF-8. NaN and infinities are refused: JSON has none, others could not read them."""

    def dumps(self, value: Any, /) -> str:
        """Its text."""
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    def loads(self, data: bytes, /) -> Any:
        """Dicts, lists, strings, numbers, booleans and None."""
        return json.loads(data)


class MessagePack:
    """MessagePack, which tells text from bytes and keeps keys of dicts as they are."""

    def dumps(self, value: Any, /) -> bytes:
        """Its bytes."""
        return msgspec.msgpack.encode(value)

    def loads(self, data: bytes, /) -> Any:
        """As of JSON, and bytes and timestamps."""
        return msgspec.msgpack.decode(data)


_NAMED: dict[object, Serializer[Any]] = {"json": Json(), "msgpack": MessagePack()}


def serializer_of(given: object) -> Serializer[Any] | None:
    """The serializer that is meant, None for bytes; raises InvalidRequest."""
    if isinstance(given, str):
        if given not in _NAMED:
            raise InvalidRequest("serializer", f"{given!r} is not one of {'|'.join(map(str, _NAMED))}")
        return _NAMED[given]
    if given is not None and not (
        callable(getattr(given, "dumps", None)) and callable(getattr(given, "loads", None))
    ):
        raise InvalidRequest("serializer", f"{given!r} has no dumps and loads")
    return given  # type: ignore[return-value]  # by the test above


def encoded(serializer: Serializer[Any] | None, value: Any) -> str | bytes:
    """What is stored of a value; raises InvalidRequest when the serializer refuses it."""
    if serializer is None:
        return value  # type: ignore[no-any-return]  # text or bytes, which the request checks
    try:
        return serializer.dumps(value)
    except Exception as error:
        raise InvalidRequest("value", f"the serializer does not take it: {_said(error)}") from error


def decoded(serializer: Serializer[Any] | None, bucket: str, key: bytes, stored: Value) -> Sibling[Any]:
    """A sibling as its bucket's program sees it; one that cannot be decoded says so when it is looked at."""
    held: tuple[str, int, int] = (stored.content_type, stored.time, stored.expiry)
    if serializer is None:
        return Sibling(stored.value, *held)
    try:
        return Sibling(serializer.loads(stored.value), *held)
    except Exception as error:  # noqa: BLE001  (as above)
        problem = UndecodableValue(bucket, key, stored.value, _said(error))
        return Undecodable(stored.value, *held, problem=problem)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
