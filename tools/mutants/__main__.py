"""`python -m tools.mutants`: plant a sample of defects, print which the tests have not noticed."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import click

from tools.mutants.changes import Change, changes
from tools.mutants.equivalents import as_equivalent, equivalents
from tools.mutants.reach import Reach
from tools.mutants.record import Record, digest_of
from tools.mutants.suites import SUITES, Suite, mutated_files
from tools.mutants.trial import Copy, Outcome, Result

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / ".mutants"


@click.command()
@click.argument("files", nargs=-1)
@click.option("--count", default=40, show_default=True, help="How many defects to plant.")
@click.option("--seed", type=int, help="Which ones; by default a seed is drawn, and printed.")
@click.option("--processes", default=2, show_default=True, help="How many to try at once.")
def main(files: tuple[str, ...], count: int, seed: int | None, processes: int) -> None:
    """Plant small defects, one at a time, in FILES (patterns; none given: all that have a suite).

    Each is tried against the fast tests of its file, and then against seeds of the simulator. The same
    command goes on where it was interrupted, as long as no source and no test has changed.
    """
    try:
        suites = mutated_files(ROOT, files)
        known = equivalents(ROOT)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    everything = [change for name in suites for change in changes(ROOT / name, name)]
    wanted = [c for c in everything if as_equivalent(c, (ROOT / c.path).read_bytes()) not in known]
    sample = random.Random(seed).sample(wanted, min(count, len(wanted)))
    click.echo(f"seed {seed}: {len(sample)} of {len(everything)} defects, {len(known)} equivalents left out")
    record = Record(RECORDS / f"seed-{seed}.jsonl", ROOT)
    left = [change for change in sample if change not in record.results]
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        try:
            _try_all(left, suites, record, Path(directory), processes)
        except RuntimeError as error:
            raise click.ClickException(str(error)) from error
    _report(sample, record)


def _try_all(
    left: list[Change], suites: dict[str, Suite], record: Record, directory: Path, processes: int
) -> None:
    """Try every defect, in copies of the project of which each is used by one trial at a time."""
    copies: SimpleQueue[Copy] = SimpleQueue()
    for number in range(processes):
        copies.put(Copy(ROOT, directory / str(number)))
    with ThreadPoolExecutor(processes) as pool:
        needed = list(dict.fromkeys(suites[change.path] for change in left))
        reach = dict(zip(needed, pool.map(partial(_reach, copies, digest_of(ROOT)), needed), strict=True))
        try:
            trials = pool.map(
                lambda change: _trial(copies, change, suites[change.path], reach[suites[change.path]]), left
            )
            for done, (change, result) in enumerate(zip(left, trials, strict=True), 1):
                record.add(change, result)
                line = change.line((ROOT / change.path).read_bytes())
                click.echo(f"{done:4} {result.outcome:8} {change.path}:{line} {result.by}"[:160])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _reach(copies: SimpleQueue[Copy], digest: str, suite: Suite) -> Reach:
    """Of a run without defects, which is kept until a source or a test changes."""
    kept = RECORDS / f"reach-{digest}-{SUITES.index(suite)}.json"
    if kept.exists():
        return Reach.read(kept)
    copy = copies.get()
    try:
        reach = copy.baseline(suite)
    finally:
        copies.put(copy)
    reach.write(kept)
    return reach


def _trial(copies: SimpleQueue[Copy], change: Change, suite: Suite, reach: Reach) -> Result:
    copy = copies.get()
    try:
        return copy.trial(change, suite, reach)
    finally:
        copies.put(copy)


def _report(sample: list[Change], record: Record) -> None:
    """Each survivor with its diff, the score of each file, and that of all."""
    survivors = [c for c in sample if record.results[c].outcome is Outcome.SURVIVED]
    for change in sorted(survivors, key=lambda change: (change.path, change.start)):
        click.echo(f"\n{change.path} survived:\n{change.diff((ROOT / change.path).read_bytes())}")
    click.echo("\nscore   noticed  file")
    planted = Counter(change.path for change in sample)
    survived = Counter(change.path for change in survivors)
    for path, number in sorted(planted.items()):
        _line(number - survived[path], number, path)
    _line(len(sample) - len(survivors), len(sample), "all")


def _line(noticed: int, number: int, name: str) -> None:
    click.echo(f"{noticed / number:5.0%} {noticed:4} of {number:3}  {name}")


if __name__ == "__main__":
    main()
