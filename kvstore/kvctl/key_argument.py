"""The KEY of a command, or a prefix of keys: text, or bytes in base64 or hexadecimal digits."""

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

    return click.argument("key")(key_forms("KEY")(call))


def prefix_option(command: Command) -> Command:
    """Give a command a `prefix` of keys, as bytes; empty without one."""

    @wraps(command)
    def call(*args: Any, prefix: str, key_form: str | None, **others: Any) -> None:
        command(*args, prefix=key_bytes(prefix, key_form, "prefix"), **others)

    told = "Only keys that begin so; all of them are looked at for it."
    return click.option("--prefix", default="", help=told)(key_forms("PREFIX")(call))


def key_forms(name: str) -> Callable[[Command], Command]:
    """Give a command the options that say how its `name` is written; it gets `key_form`."""

    def add(command: Command) -> Command:
        base = click.option("--key-base64", "key_form", flag_value="base64", help=f"{name} is base64.")
        digits = click.option("--key-hex", "key_form", flag_value="hex", help=f"{name} is hex digits.")
        return base(digits(command))

    return add


def key_bytes(text: str, form: str | None, field: str = "key") -> bytes:
    """The bytes of a key, or of another `field` that is written like one; raises InvalidRequest."""
    try:
        match form:
            case "base64":
                return base64.b64decode(text, validate=True)
            case "hex":
                return bytes.fromhex(text)
            case _:
                data = text.encode(errors="surrogateescape")  # as it was given, in any locale
                data.decode()
                return data
    except UnicodeError:
        raise InvalidRequest(field, "is not UTF-8: give it with --key-base64 or --key-hex") from None
    except (binascii.Error, ValueError):
        raise InvalidRequest(field, f"{text[:80]!r} is not {form}") from None


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
