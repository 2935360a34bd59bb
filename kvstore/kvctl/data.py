"""`kvctl data`: what lies in the data directory of a node that does not run."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kvstore.kvctl.dump import dump, load
from kvstore.kvctl.failures import STORAGE
from kvstore.kvctl.groups import CommandGroup
from kvstore.kvctl.invocation import Invocation
from kvstore.kvctl.output import say
from kvstore.kvctl.progress import progress_bar
from kvstore.kvctl.records import describe_key, key_fields
from kvstore.kvctl.stores import size_of, storage_errors, store_in, stored_directory
from kvstore.lsm import Compaction, Engine, Options
from kvstore.lsm.problems import Counts, Problem
from kvstore.lsm.stopped import open_stopped, read_state
from kvstore.lsm.verify import verify as verify_store
from kvstore.store import DiskFileSystem


@click.group(cls=CommandGroup)
def data() -> None:
    """Look into the data of a node that does not run, or make it anew.

    DIR is the node's data directory (kvnode --data), that of a node of a local cluster (.kvstore/local/n1),
    or a store of its own, such as a checkpoint. A node that runs is refused: it has the directory locked.
    """


data.add_command(dump)
data.add_command(load)

# verify


@data.command()
@stored_directory
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
    with storage_errors():
        store = store_in(directory)
        with progress_bar() as progress:
            task = progress.add_task("verifying", total=size_of(store))
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


# compact


@data.command()
@stored_directory
@click.pass_obj
def compact(session: Invocation, directory: Path) -> None:
    """Merge all tables into one run: what was written over or deleted leaves the disk.

    It needs as much free space as the tables take. If it fails, the tables stay as they were.

    \b
    Example:
      kvctl data compact /var/lib/kvstore
    """
    with storage_errors():
        store = store_in(directory)
        options = _checked_options(store)
        before = size_of(store)
        engine = Engine.open(DiskFileSystem(), str(store), options)
        try:
            tables = engine.statistics().tables
            with progress_bar() as progress:
                task = progress.add_task("compacting", total=engine.statistics().table_bytes)
                engine.maintenance.compact(lambda size: progress.advance(task, size))
            found = {
                "before": {"tables": tables, "bytes": before},
                "after": {"tables": engine.statistics().tables, "bytes": size_of(store)},
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
