"""`kvctl put`, `get`, `delete`: one key at a time."""

from __future__ import annotations

import base64
import binascii
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import click

from kvstore.client.results import Explain, Result, Sibling
from kvstore.client.results import Stored as StoredResult
from kvstore.client.transfer.records import named
from kvstore.config import Limits
from kvstore.errors import InvalidRequest
from kvstore.kvctl.bucket_argument import complete_bucket
from kvstore.kvctl.failures import NOT_FOUND
from kvstore.kvctl.inputs import InputFile, input_errors
from kvstore.kvctl.invocation import Invocation
from kvstore.kvctl.key_argument import as_json, key_argument, shown
from kvstore.kvctl.output import note, say, write

_QUORUM = click.Choice(["strict", "sloppy"])

Command = Callable[..., None]


def _quorum_options(wait: str) -> Callable[[Command], Command]:
    """The options that a request may override its bucket with; `wait` is r or w."""

    def add(command: Command) -> Command:
        replicas = click.option(f"-{wait}", f"--{wait}", type=int, help="Replicas to wait for.")
        quorum = click.option("--quorum", type=_QUORUM, help="Whether fallbacks count.")
        explain = click.option("--explain", is_flag=True, help="Show how the reply came about.")
        return replicas(quorum(explain(command)))

    return add


_read_replicas = click.option(
    "-r", "--r", type=int, help="Replicas that the read before it waits for; by default as many as -w says."
)


@click.command()
@click.argument("bucket", shell_complete=complete_bucket)
@key_argument
@_quorum_options("r")
@click.option("--raw", is_flag=True, help="The value's bytes and nothing else.")
@click.pass_obj
def get(
    session: Invocation, bucket: str, key: bytes, r: int | None, quorum: str | None, explain: bool, raw: bool
) -> None:
    """Print the value of a key, or all of them if it has siblings.

    \b
    Examples:
      kvctl get carts user:1
      kvctl get carts user:1 --explain -r 3
      kvctl -o json get carts user:1
    """
    with session.connect() as client:
        result = client.bucket(bucket).get(key, r=r, quorum=quorum, explain=explain)
    if session.json:
        session.show_json(_result_as_json(result))
    elif raw:
        _print_raw(result)
    else:
        _print_result(result)
    if not result:
        note(f"kvctl: {named(key)} has no value in bucket {bucket!r}")
        sys.exit(NOT_FOUND)


@click.command()
@click.argument("bucket", shell_complete=complete_bucket)
@key_argument
@click.argument("value", required=False)
@click.option("--file", type=InputFile(), help="Read the value from a file; - is standard input.")
@click.option("--context", help="Write over what this context (base64, from get) saw.")
@click.option("--blind", is_flag=True, help="Write without a context: what is there stays, as a sibling.")
@click.option("--content-type", default="", help="MIME type to keep with the value.")
@click.option("--ttl", type=int, help="Seconds until the value expires.")
@_read_replicas
@_quorum_options("w")
@click.pass_obj
def put(
    session: Invocation,
    bucket: str,
    key: bytes,
    value: str | None,
    file: BinaryIO | None,
    context: str | None,
    blind: bool,
    content_type: str,
    ttl: int | None,
    r: int | None,
    w: int | None,
    quorum: str | None,
    explain: bool,
) -> None:
    """Write a value over what the key holds now (it is read first), or over what --context saw.

    \b
    Examples:
      kvctl put carts user:1 '{"items": 3}'
      kvctl put carts user:1 --file cart.json --content-type application/json
      echo hello | kvctl put carts user:1 -
    """
    if context is not None and blind:
        raise click.UsageError("--context and --blind exclude each other")
    data = _value(value, file)
    with session.connect() as client:
        target = client.bucket(bucket, quorum=quorum)
        seen = _decode_context(context) if context is not None else b""
        if context is None and not blind:
            with _named_as_given(r, w):
                seen = target.get(key, r=w if r is None else r).context
        stored = target.put(key, data, context=seen, content_type=content_type, ttl=ttl, w=w, explain=explain)
    _print_stored(session, "stored", stored)


@click.command()
@click.argument("bucket", shell_complete=complete_bucket)
@key_argument
@click.option("--context", help="Delete only what this context (base64, from get) saw.")
@_read_replicas
@_quorum_options("w")
@click.pass_obj
def delete(
    session: Invocation,
    bucket: str,
    key: bytes,
    context: str | None,
    r: int | None,
    w: int | None,
    quorum: str | None,
    explain: bool,
) -> None:
    """Delete the value of a key; deleting what is not there is no error.

    \b
    Example:
      kvctl delete carts user:1
    """
    seen = _decode_context(context) if context is not None else b""
    with session.connect() as client:
        target = client.bucket(bucket, quorum=quorum)
        with _named_as_given(r, w):
            stored = target.delete(key, context=seen, r=w if r is None else r, w=w, explain=explain)
    _print_stored(session, "deleted", stored)


@contextmanager
def _named_as_given(r: int | None, w: int | None) -> Iterator[None]:
    """Where -w stands for -r as well, what is wrong with it is wrong with -w."""
    try:
        yield
    except InvalidRequest as error:
        if error.field == "r" and r is None and w is not None:
            raise InvalidRequest("w", error.reason) from None
        raise


def _value(value: str | None, file: BinaryIO | None) -> bytes:
    if (value is None) == (file is None):
        raise click.UsageError("give the VALUE or --file, one of them")
    if file is not None:
        return _read(file, file.name)
    if value != "-":
        return (value or "").encode(errors="surrogateescape")
    if sys.stdin is None:
        raise click.UsageError("standard input is closed")
    return _read(sys.stdin.buffer, "standard input")


def _read(file: BinaryIO, name: str) -> bytes:
    """All of it, but no more than any cluster takes: it may have no end."""
    with input_errors(name):
        data = file.read(Limits.MAX_VALUE + 1)
    if len(data) > Limits.MAX_VALUE:
        raise InvalidRequest("value", f"has more than {Limits.MAX_VALUE:,} bytes")
    return data


def _decode_context(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("context", "is not base64") from None


def _print_raw(result: Result) -> None:
    if len(result.siblings) > 1:
        raise InvalidRequest(
            "key", f"has {len(result.siblings)} siblings, which --raw cannot print as one value"
        )
    if result.siblings:
        write(result.siblings[0].value)


def _print_result(result: Result) -> None:
    siblings = result.siblings
    for number, sibling in enumerate(siblings, 1):
        mark = f"sibling {number} of {len(siblings)}: " if len(siblings) > 1 else ""
        say(f"{mark}{shown(sibling.value)}")
    if len(siblings) > 1:
        note(f"context: {base64.b64encode(result.context).decode()}")
        note("concurrent writes; `kvctl put` writes over all of them")
    if result.explain:
        _print_explain(result.explain)


def _print_stored(session: Invocation, verb: str, stored: StoredResult) -> None:
    if session.json:
        context = base64.b64encode(stored.context).decode()
        found: dict[str, object] = {
            "siblings": stored.siblings,
            "context": context,
            "overwritten": stored.overwritten,
        }
        session.show_json(found | _explain_as_json(stored.explain))
        return
    others = stored.siblings - (verb == "stored")
    if others > 0:
        verb += f"; concurrent values that stay: {others}"
    if stored.overwritten:
        verb += f"; values overwritten without having been seen: {stored.overwritten}"
    say(verb)
    if stored.explain:
        note(f"overwritten: {stored.overwritten}")
        _print_explain(stored.explain)


def _print_explain(explain: Explain) -> None:
    for name, value in _explain_fields(explain).items():
        note(f"{name}: {value if not isinstance(value, list) else ' '.join(value) or '-'}")


def _explain_fields(explain: Explain) -> dict[str, object]:
    return {
        "coordinator": explain.coordinator,
        "epoch": explain.epoch,
        "partition": explain.partition,
        "asked": list(explain.asked),
        "answered": list(explain.answered),
        "repaired": list(explain.repaired),
        "hinted": list(explain.hinted),
        "hedged": list(explain.hedged),
    }


def _explain_as_json(explain: Explain | None) -> dict[str, object]:
    return {"explain": _explain_fields(explain)} if explain else {}


def _result_as_json(result: Result) -> dict[str, object]:
    found = as_json("key", result.key) | {
        "siblings": [_sibling_as_json(sibling) for sibling in result.siblings],
        "context": base64.b64encode(result.context).decode(),
    }
    return found | _explain_as_json(result.explain)


def _sibling_as_json(sibling: Sibling) -> dict[str, object]:
    return as_json("value", sibling.value) | {
        "content_type": sibling.content_type,
        "time_ms": sibling.time,
        "expiry_ms": sibling.expiry or None,
    }
