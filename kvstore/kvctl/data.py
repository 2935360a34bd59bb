"""`kvctl data`: what lies in the data directory of a node that does not run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from kvstore.errors import StorageError
from kvstore.kvctl.failures import STORAGE
from kvstore.kvctl.groups import CommandGroup
from kvstore.kvctl.invocation import Invocation
from kvstore.kvctl.output import note, say
from kvstore.kvctl.progress import progress_bar
from kvstore.kvctl.records import describe_key, key_fields, raw_record, record
from kvstore.lsm import Compaction, Engine, Options
from kvstore.lsm.problems import Counts, Problem
from kvstore.lsm.stopped import open_stopped, read_state
from kvstore.lsm.verify import verify as verify_store
from kvstore.server.data_directory import IDENTITY, find_store
from kvstore.store import DiskFileSystem

_directory = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))


@click.group(cls=CommandGroup)
def data() -> None:
    """Look into the data of a node that does not run.

    DIR is the node's data directory (kvnode --data), that of a node of a local cluster (.kvstore/local/n1),
    or a store of its own, such as a checkpoint. A node that runs is refused: it has the directory locked.
    """


@contextmanager
def _storage_errors() -> Iterator[None]:
    """What the disk or the store is to blame for is one line and an exit code of its own."""
    try:
        yield
    except BrokenPipeError:
        raise
    except StorageError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")


def _fail(reason: str) -> None:
    note(f"kvctl: {reason}")
    sys.exit(STORAGE)


# verify


@data.command()
@_directory
@click.pass_obj
def verify(session: Invocation, directory: Path) -> None:
    """Read every byte, and name what is wrong: file, block and the keys that are affected.

    Nothing is changed. A note is what a crash leaves and the next start clears away; anything else is a
    problem, and ends this with exit code 6.

    \b
    Examples:
      kvctl data verify /var/lib/kvstore
      kvctl -o json data verify .kvstore/local/n1/data
    """
    counts = Counts()
    problems: list[Problem] = []
    with _storage_errors():
        store = _store(directory)
        with progress_bar() as progress:
            task = progress.add_task("verifying", total=_size(store))
            for problem in verify_store(
                DiskFileSystem(), str(store), counts, lambda size: progress.advance(task, size)
            ):
                problems.append(problem)
                if not session.json:
                    say(_problem_line(problem))
    if session.json:
        session.show_json(_report(counts, problems))
    else:
        say(_summary(counts, problems))
    if any(not problem.kind.harmless for problem in problems):
        sys.exit(STORAGE)


def _problem_line(problem: Problem) -> str:
    note = "note: " if problem.kind.harmless else ""
    keys = ""
    if problem.keys:
        first, last = map(describe_key, problem.keys)
        keys = f"; keys from {first} to {last}"
    return f"{note}{problem.file}: {problem.what}{keys}"


def _summary(counts: Counts, problems: list[Problem]) -> str:
    notes = sum(problem.kind.harmless for problem in problems)
    return (
        f"verified {counts.files:,} files, {counts.blocks:,} blocks, {counts.bytes:,} bytes, "
        f"{counts.entries:,} entries: {len(problems) - notes:,} problems, {notes:,} notes"
    )


def _report(counts: Counts, problems: list[Problem]) -> dict[str, object]:
    return {
        "files": counts.files,
        "blocks": counts.blocks,
        "bytes": counts.bytes,
        "entries": counts.entries,
        "problems": [
            {
                "kind": problem.kind.value,
                "harmless": problem.kind.harmless,
                "file": problem.file,
                "offset": problem.offset,
                "what": problem.what,
                "keys": [key_fields(key) for key in problem.keys] if problem.keys else None,
            }
            for problem in problems
        ],
    }


# dump


@data.command()
@_directory
@click.option("--bucket", help="Only the data and hints of one bucket.")
@click.option("--limit", type=click.IntRange(min=0), help="Stop after so many records.")
@click.option("--raw", is_flag=True, help="Keys and values as the engine has them, in base64.")
def dump(directory: Path, bucket: str | None, limit: int | None, raw: bool) -> None:
    """Print all that is stored, a JSON object a line, as it would be after a start.

    Data comes in order of tokens, with the version of each key: context, siblings, tombstones. Hints are what
    is kept for other nodes. Nothing is changed. A damaged block ends it with exit code 6.

    \b
    Examples:
      kvctl data dump /var/lib/kvstore
      kvctl data dump /var/lib/kvstore --bucket carts --limit 10
    """
    if raw and bucket is not None:
        raise click.UsageError("--raw and --bucket exclude each other")
    with _storage_errors(), open_stopped(DiskFileSystem(), str(_store(directory))) as store:
        printed = 0
        for key, value in store.scan():
            if printed == limit:
                break
            fields = raw_record(key, value) if raw else record(key, value)
            if bucket is None or fields.get("bucket") == bucket:
                say(json.dumps(fields, ensure_ascii=False))
                printed += 1


# compact


@data.command()
@_directory
@click.pass_obj
def compact(session: Invocation, directory: Path) -> None:
    """Merge all tables into one run: what was written over or deleted leaves the disk.

    It needs as much free space as the tables take. If it fails, the tables stay as they were.

    \b
    Example:
      kvctl data compact /var/lib/kvstore
    """
    with _storage_errors():
        store = _store(directory)
        options = _checked_options(store)
        before = _size(store)
        engine = Engine.open(DiskFileSystem(), str(store), options)
        try:
            tables = engine.statistics().tables
            with progress_bar() as progress:
                task = progress.add_task("compacting", total=engine.statistics().table_bytes)
                engine.maintenance.compact(lambda size: progress.advance(task, size))
            found = {
                "before": {"tables": tables, "bytes": before},
                "after": {"tables": engine.statistics().tables, "bytes": _size(store)},
            }
        finally:
            engine.close()
    if session.json:
        session.show_json(found)
    else:
        say("; ".join(f"{when} {f['tables']:,} tables, {f['bytes']:,} bytes" for when, f in found.items()))


def _checked_options(store: Path) -> Options:
    """The way of compacting that the tables are kept in; raises StorageError before anything is changed."""
    fs = DiskFileSystem()
    with open_stopped(fs, str(store)):
        leveled = any(info.level for info in read_state(fs, str(store)).tables.values())
    return Options(compaction=Compaction.LEVELED if leveled else Compaction.SIZE_TIERED)


def _store(directory: Path) -> Path:
    """The store in a directory, which may be that of a node of a local cluster: its data is one below."""
    below = directory / "data"
    return find_store(below if (below / IDENTITY).exists() else directory)


def _size(store: Path) -> int:
    return sum(path.stat().st_size for path in store.iterdir())
