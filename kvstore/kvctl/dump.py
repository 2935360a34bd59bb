"""`kvctl data dump` and `load`: a whole store as JSON Lines, and back."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from kvstore.client.transfer.source import Source
from kvstore.errors import ConfigError
from kvstore.kvctl.inputs import CheckedInput, InputFile
from kvstore.kvctl.loading import Loader
from kvstore.kvctl.output import note, say
from kvstore.kvctl.records import Fields, raw_record, record
from kvstore.kvctl.stores import storage_errors, store_in, stored_directory
from kvstore.kvctl.whole_file import sync_directory
from kvstore.lsm.stopped import open_stopped
from kvstore.server.data_directory import IDENTITY
from kvstore.server.identity import read
from kvstore.store import DiskFileSystem


@click.command()
@stored_directory
@click.option("--bucket", help="Only the data and hints of one bucket.")
@click.option("--limit", type=click.IntRange(min=0), help="Stop after so many records.")
@click.option("--raw", is_flag=True, help="Keys and values as the engine has them, in base64.")
def dump(directory: Path, bucket: str | None, limit: int | None, raw: bool) -> None:
    """Print all that is stored, a JSON object a line, as it would be after a start.

    Data comes in order of tokens, with the version of each key: context, siblings, tombstones. Hints are what
    is kept for other nodes. Nothing is changed. A damaged block ends it with exit code 6. The last line says
    how many records there are, and `data load` takes it all back; --raw has also the keys that contexts are
    signed with, which are a secret of the cluster.

    \b
    Examples:
      kvctl data dump /var/lib/kvstore
      kvctl data dump /var/lib/kvstore --bucket carts --limit 10
    """
    if raw and bucket is not None:
        raise click.UsageError("--raw and --bucket exclude each other")
    with storage_errors():
        store = store_in(directory)
        with open_stopped(DiskFileSystem(), str(store)) as opened:
            if bucket is None and limit is None and (store.parent / IDENTITY).exists():
                _print({"kind": "identity", "identity": json.loads((store.parent / IDENTITY).read_bytes())})
            printed = 0
            for fields in _records(opened.scan(), bucket, raw):
                if printed == limit:
                    return
                _print(fields)
                printed += 1
    if limit is None:
        _print({"kind": "end", "records": printed})


def _records(found: Iterator[tuple[bytes, bytes]], bucket: str | None, raw: bool) -> Iterator[Fields]:
    for key, value in found:
        fields = raw_record(key, value) if raw else record(key, value)
        if bucket is None or fields.get("bucket") == bucket:
            yield fields


def _print(fields: Fields) -> None:
    say(json.dumps(fields, ensure_ascii=False))


@click.command()
@stored_directory
@click.argument("file", type=InputFile())
def load(directory: Path, file: IO[bytes]) -> None:
    """Make the store that `kvctl data dump` printed into FILE; - is standard input.

    DIR must not exist, or be empty. It becomes a node's data directory again if it was one, and otherwise a
    store: contexts, siblings, tombstones, hints and all else are exactly as they were. The keys that contexts
    are signed with are in a dump with --raw alone; without them the node takes those of the others. What is
    wrong with a line is said, and nothing is made then.

    \b
    Example:
      kvctl data dump --raw /var/lib/kvstore > n1.dump
      kvctl data load /mnt/new n1.dump
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(f"{directory} is there already, and is no empty directory")
    directory = Path(os.path.realpath(directory))  # Path.resolve raises no OSError where links form a circle
    with storage_errors():
        directory.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(".new", f".{directory.name}.", directory.parent))
        try:
            loader = Loader(made)
            loader.run(Source(CheckedInput(file)).lines())
            if (made / IDENTITY).exists():
                read(made / IDENTITY)
            os.replace(made, directory)
            sync_directory(directory.parent)
        finally:
            shutil.rmtree(made, ignore_errors=True)  # it is there no more if all went well
    if loader.secrets:
        note(
            f"kvctl: {loader.secrets:,} keys of contexts are not in the dump: the node takes those of others"
        )
    say(f"loaded {loader.records:,} records")
