"""`kvctl import` and `export`: whole buckets as JSON Lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

import click

from kvstore.client.transfer.exporting import Exporter, ExportReport
from kvstore.client.transfer.foreign import foreign_records
from kvstore.client.transfer.importing import Importer, ImportReport, OnDuplicate
from kvstore.client.transfer.lines import ExportReader
from kvstore.client.transfer.records import BadLine, Problems, Record
from kvstore.client.transfer.source import Source
from kvstore.client.transfer.stretches import pages_at_once
from kvstore.kvctl.bucket_argument import complete_bucket
from kvstore.kvctl.failures import INCOMPLETE
from kvstore.kvctl.inputs import CheckedInput, InputFile
from kvstore.kvctl.invocation import Invocation
from kvstore.kvctl.output import note, tell
from kvstore.kvctl.progress import Advance, progress
from kvstore.kvctl.whole_file import Target, open_target

_patience = click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds for which a batch is tried again while nodes are away.",
)


@click.command("import")
@click.argument("file", type=InputFile())
@click.option(
    "--key", "key_field", metavar="FIELD", help="Field that holds the key of each object; a.b is b in a."
)
@click.option("--bucket", shell_complete=complete_bucket, required=True, help="Bucket to import into.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What a line that cannot be imported does.",
)
@click.option(
    "--on-duplicate",
    type=click.Choice(["last", "first", "stop"]),
    default="last",
    show_default=True,
    help="Which of two lines with one key is stored.",
)
@_patience
@click.pass_obj
def import_(
    session: Invocation,
    file: BinaryIO,
    key_field: str | None,
    bucket: str,
    on_error: str,
    on_duplicate: OnDuplicate,
    patience: float,
) -> None:
    """Import what `kvctl export` wrote, or with --key JSON or CSV of other programs; - is standard input.

    An export gives each key back as it was: siblings, content types, and what is left of its time to live.
    Other files are JSON Lines, a JSON array, or CSV with a header (also with ; or tabs). Each object is
    stored as it is in the file, each row of CSV as a JSON object of text, under the key in its FIELD. All are
    written over what the key holds: importing a file twice changes nothing the second time. A bad line is
    named by its number and stops the import (lines before it are stored) or is skipped, as --on-error says.

    \b
    Examples:
      kvctl import carts.export --bucket carts
      kvctl import airports.jsonl --key icao --bucket airports
      kvctl import users.csv --key email --bucket users
      kvctl import orders.json --key customer.id --bucket orders
    """
    reader = ExportReader()
    with session.connect() as client:
        importer = Importer(client.bucket(bucket), patience)
        try:
            # one that ends it is in the report, and named there
            with progress("importing", _size(file), session.json) as advance, suppress(BadLine):
                records = _records(file, key_field, reader, advance)
                importer.run(records, on_error == "skip", on_duplicate)
        finally:
            # how far it came, whatever ended it; not beside the bar, which is gone now
            _print_import(session, importer.report)
    if reader.left_out:
        note(f"kvctl: {reader.left_out:,} keys had been left out of the export when it was made")
    _name(importer.report.duplicates, "duplicates")
    _name(importer.report.bad, "lines")
    if importer.report.bad.count or importer.report.duplicates.count:
        sys.exit(INCOMPLETE)


def _records(
    file: BinaryIO, key_field: str | None, reader: ExportReader, advance: Advance
) -> Iterator[Record | BadLine]:
    source = Source(CheckedInput(file), advance)
    if key_field is None:
        return reader.records(source.lines())
    return foreign_records(source, file.name, key_field)


@click.command()
@click.argument("file", default="-", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--bucket", shell_complete=complete_bucket, required=True, help="Bucket to export.")
@click.option("--plain", is_flag=True, help="Only the values that are one JSON object, as they are.")
@_patience
@click.pass_obj
def export(session: Invocation, file: str, bucket: str, plain: bool, patience: float) -> None:
    """Export a bucket, for `kvctl import`; - is standard output.

    It has every key exactly, as JSON Lines (docs/kvctl.md): siblings, content types, when values expire, and
    as base64 what is not UTF-8. FILE is replaced when the export is whole, and until then left alone. With
    --plain it is JSON Lines of the values alone; keys whose value is no JSON object, or that have siblings,
    are left out and named. A write that goes on meanwhile may or may not be in the file.

    \b
    Examples:
      kvctl export --bucket carts carts.export
      kvctl export --bucket airports --plain | jq .city
    """
    with session.connect() as client, open_target(file) as target:
        exporter = Exporter(client.bucket(bucket), patience, pages_at_once(client.ring()))
        lines = exporter.objects() if plain else exporter.export()
        try:
            with progress("exporting", None, session.json) as advance:
                _write(target, lines, advance)
        except BaseException:
            _tell_end(exporter.report, file)
            raise
        aside = target.keep(incomplete=exporter.report.left_out.count > 0)
    _print_export(session, exporter.report)
    _name(exporter.report.left_out, "keys", "left out: ")
    _name(exporter.report.too_deep, "keys")
    if aside is not None:
        note(f"kvctl: the export is in {aside}, and {file} is as it was")
    if exporter.report.left_out.count or exporter.report.too_deep.count:
        sys.exit(INCOMPLETE)


def _write(target: Target, parts: Iterator[bytes], advance: Advance) -> None:
    for lines in parts:
        target.write(lines)
        advance(len(lines))


def _tell_end(report: ExportReport, file: str) -> None:
    untouched = f"; {file} is as it was" if os.path.isfile(file) else ""
    click.echo(f"kvctl: the export ended after {report.exported:,} keys{untouched}", err=True)


def _size(file: BinaryIO) -> int | None:
    try:
        return os.fstat(file.fileno()).st_size or None
    except (OSError, ValueError):
        return None  # not a file: how long it is will be seen


def _name(problems: Problems, what: str, prefix: str = "") -> None:
    for problem in problems.first:
        note(f"kvctl: {prefix}{problem}")
    if problems.count > len(problems.first):
        note(f"kvctl: and {problems.count - len(problems.first):,} {what} more")


def _print_import(session: Invocation, report: ImportReport) -> None:
    counts = {
        "imported": report.imported,
        "unchanged": report.unchanged,
        "retried": report.retried,
        "failed": report.bad.count,
        "duplicates": report.duplicates.count,
        "expired": report.expired,
    }
    if session.json:
        session.show_json(counts)
        return
    always = ("imported", "unchanged", "retried", "failed")
    tell(", ".join(f"{name} {count:,}" for name, count in counts.items() if count or name in always))


def _print_export(session: Invocation, report: ExportReport) -> None:
    """On standard error, since standard output may be the export itself."""
    if session.json:
        counts = {"exported": report.exported, "retried": report.retried, "left_out": report.left_out.count}
        click.echo(json.dumps(counts), err=True)
    else:
        note(f"exported {report.exported:,} keys")
