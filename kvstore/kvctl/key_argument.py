"""The KEY of a command: text, or bytes in base64 or hexadecimal digits."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from kvstore.errors import InvalidRequest

Command = Callable[..., None]


def key_argument(command: Command) -> Command:
    """Give a command a KEY argument, as bytes."""

    @wraps(command)
    def call(*args: Any, key: str, key_form: str | None, **others: Any) -> None:
        command(*args, key=key_bytes(key, key_form), **others)

    return click.argument("key")(key_forms(call))


def key_forms(command: Command) -> Command:
    """Give a command the options that say how its KEY is written; it gets `key_form`."""
    base = click.option("--key-base64", "key_form", flag_value="base64", help="KEY is bytes in base64.")
    hexadecimal = click.option("--key-hex", "key_form", flag_value="hex", help="KEY is bytes in hex digits.")
    return base(hexadecimal(command))


def key_bytes(text: str, form: str | None) -> bytes:
    """The bytes of a key; raises InvalidRequest."""
    try:
        match form:
            case "base64":
                return base64.b64decode(text, validate=True)
            case "hex":
                return bytes.fromhex(text)
            case _:
                return text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("key", "is not UTF-8: give it with --key-base64 or --key-hex") from None
    except (binascii.Error, ValueError):
        raise InvalidRequest("key", f"{text[:80]!r} is not {form}") from None


def as_json(name: str, data: bytes) -> dict[str, object]:
    """Bytes under a name: as text, or as base64 if they are none."""
    text, encoded = as_text(data)
    return {f"{name}_base64" if encoded else name: text}


def as_text(data: bytes) -> tuple[str, bool]:
    """Bytes as text, and whether they had to be base64 for that."""
    try:
        return data.decode(), False
    except UnicodeDecodeError:
        return base64.b64encode(data).decode(), True


def shown(data: bytes) -> str:
    """Bytes for people: as text, or marked as base64."""
    text, encoded = as_text(data)
    return f"{'base64:' if encoded else ''}{text}"
