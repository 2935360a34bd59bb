"""The endpoints a client is given: `host:port,host:port`, perhaps with `kvstore://` before them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvstore.config import is_address
from kvstore.errors import ConfigError

_SCHEME = "kvstore://"


def parse_endpoints(endpoints: str | Sequence[str]) -> tuple[str, ...]:
    """Read `host:port,host:port` (or a list of them), without repetitions; raises ConfigError.

    So that they can be one URL, `kvstore://host:port,host:port` is the same. An IPv6 address stands in
    brackets: `[::1]:7001`.
    """
    given: object = endpoints  # of whatever type, in spite of what is declared
    if isinstance(given, str):
        listed = given.strip()
        if listed.startswith(_SCHEME):
            listed = listed.removeprefix(_SCHEME).removesuffix("/")
        items: Sequence[object] = listed.split(",")
    elif isinstance(given, Iterable) and not isinstance(given, bytes):
        items = tuple(given)
    else:
        raise ConfigError(f"endpoints {given!r} are no text of the form host:port,host:port")
    parsed = tuple(dict.fromkeys(_parse(item) for item in items))
    if not parsed:
        raise ConfigError("endpoints: none given, expected host:port,host:port")
    return parsed


def _parse(item: object) -> str:
    if not isinstance(item, str):
        raise ConfigError(f"endpoint {item!r} is no text of the form host:port, such as 127.0.0.1:7001")
    text = item.strip()
    if not (_is_text(text) and is_address(text)):
        raise ConfigError(f"endpoint {text!r} is not of the form host:port, such as 127.0.0.1:7001")
    return text


def _is_text(text: str) -> bool:
    """Whether it has no bytes of the command line that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
