"""`kvctl scan`, `count`, `buckets`: what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kvstore.kvctl.bucket_argument import complete_bucket
from kvstore.kvctl.invocation import Invocation
from kvstore.kvctl.key_argument import as_json, prefix_option, shown
from kvstore.kvctl.output import say

if TYPE_CHECKING:
    from kvstore.kvctl.tables import Row

_COLUMNS = {"ttl": "ttl_s"}
"""What a setting is called as a column, where that is not its name."""


@click.command()
@click.argument("bucket", shell_complete=complete_bucket)
@prefix_option
@click.option("--limit", type=click.IntRange(min=0), help="Stop after so many keys.")
@click.pass_obj
def scan(session: Invocation, bucket: str, prefix: bytes, limit: int | None) -> None:
    """Print the keys of a bucket that have a value, one a line, in no particular order.

    Keys are spread by their hash: nodes look at every key of every bucket, whatever the prefix is, and there
    are no ranges. A key that is not UTF-8 is shown as base64:...; with -o json each line is an object with
    `key` or `key_base64`.

    \b
    Examples:
      kvctl scan carts --limit 10
      kvctl scan carts --prefix user:
      kvctl -o json scan carts
    """
    with session.connect() as client:
        for number, key in enumerate(client.bucket(bucket).keys(prefix)):
            if number == limit:
                break
            if session.json:
                session.show_json_line(as_json("key", key))
            else:
                say(shown(key))


@click.command()
@click.argument("bucket", shell_complete=complete_bucket)
@prefix_option
@click.pass_obj
def count(session: Invocation, bucket: str, prefix: bytes) -> None:
    """Count the keys of a bucket that have a value, by listing them as `scan` does.

    \b
    Examples:
      kvctl count carts
      kvctl count carts --prefix user:
    """
    with session.connect() as client:
        found = sum(1 for _ in client.bucket(bucket).keys(prefix))
    if session.json:
        session.show_json({"bucket": bucket, "keys": found})
    else:
        say(str(found))


@click.command()
@click.pass_obj
def buckets(session: Invocation) -> None:
    """Show the buckets that have settings of their own, and what holds for any other.

    A bucket is there when it is first written to: those without settings are known by their keys alone.

    \b
    Example:
      kvctl buckets
    """
    with session.connect() as client:
        state = client.ring()
    usual = state.bucket("any-other")
    any_other = None if session.json else "(any other)"
    rows: list[Row] = [
        {"bucket": each.name if each is not usual else any_other}
        | {_COLUMNS.get(setting, setting): value or None for setting, value in each.values.items()}
        for each in (*state.buckets, usual)
    ]
    session.show(rows, tuple(rows[-1]), keep=6)
