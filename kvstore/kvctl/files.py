"""`kvctl import` and `export`: whole buckets as JSON Lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

import click
from rich.progress import Progress

from kvstore.client.jsonl import BadLine, ExportReport, Importer, ImportReport, export_lines
from kvstore.errors import KVError
from kvstore.kvctl.failures import INCOMPLETE
from kvstore.kvctl.invocation import Invocation, progress_bar

_SHOWN = 20
"""Bad lines or skipped keys that are named one by one."""


@click.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--key", "key_field", required=True, metavar="FIELD", help="Field that holds the key.")
@click.option("--bucket", required=True, help="Bucket to import into.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What a line that cannot be imported does.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds for which a batch is tried again while nodes are away.",
)
@click.pass_obj
def import_(
    session: Invocation, file: BinaryIO, key_field: str, bucket: str, on_error: str, patience: float
) -> None:
    """Import a file with one JSON object per line; - is standard input.

    Each line is stored as it is under the key in its FIELD, over what the key holds: importing a file twice
    changes nothing the second time. A bad line is named by its number and stops the import (lines before it
    are stored) or is skipped, as --on-error says.

    \b
    Example:
      kvctl import airports.jsonl --key icao --bucket airports
    """
    with session.connect() as client:
        importer = Importer(client.bucket(bucket), patience)
        try:
            with progress_bar() as progress:
                importer.run(_counted(file, progress), key_field, skip_bad=on_error == "skip")
        except BadLine:
            pass  # it is in the report, and named below
        except KVError:
            _print_import(session, importer.report)
            raise
    _print_import(session, importer.report)
    for bad in importer.report.bad[:_SHOWN]:
        click.echo(f"kvctl: {bad}", err=True)
    if importer.report.bad:
        if len(importer.report.bad) > _SHOWN:
            click.echo(f"kvctl: and {len(importer.report.bad) - _SHOWN} lines more", err=True)
        sys.exit(INCOMPLETE)


@click.command()
@click.argument("file", type=click.File("wb"), default="-")
@click.option("--bucket", required=True, help="Bucket to export.")
@click.pass_obj
def export(session: Invocation, file: BinaryIO, bucket: str) -> None:
    """Export a bucket as JSON Lines, in the form that import takes; - is standard output.

    Keys whose value is no JSON object, or that have siblings, are left out and named. A write that goes on
    meanwhile may or may not be in the file.

    \b
    Example:
      kvctl export --bucket airports airports.jsonl
    """
    report = ExportReport()
    with session.connect() as client, progress_bar() as progress:
        task = progress.add_task("exporting", total=None)
        for line in export_lines(client.bucket(bucket), report):
            file.write(line)
            progress.advance(task, len(line))
        file.flush()
    click.echo(f"exported {report.exported:,} records", err=True)
    for key in report.skipped[:_SHOWN]:
        click.echo(f"kvctl: {key!r} is no single JSON object and was left out", err=True)
    if report.skipped:
        if len(report.skipped) > _SHOWN:
            click.echo(f"kvctl: and {len(report.skipped) - _SHOWN} keys more", err=True)
        sys.exit(INCOMPLETE)


def _counted(file: BinaryIO, progress: Progress) -> Iterator[bytes]:
    try:
        total: int | None = os.fstat(file.fileno()).st_size or None
    except (OSError, ValueError):
        total = None  # not a file: how long it is will be seen
    task = progress.add_task("importing", total=total)
    for line in file:
        yield line
        progress.advance(task, len(line))


def _print_import(session: Invocation, report: ImportReport) -> None:
    if session.json:
        session.show_json(
            {
                "imported": report.imported,
                "unchanged": report.unchanged,
                "retried": report.retried,
                "failed": len(report.bad),
            }
        )
        return
    click.echo(
        f"imported {report.imported:,}, unchanged {report.unchanged:,}, "
        f"retried {report.retried:,}, failed {len(report.bad):,}"
    )
