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
from tools.mutants.trial import Copy, Outcome, Result, copy_project

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
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        try:
            _Run(Path(directory), files, count, seed, processes).execute()
        except (ValueError, RuntimeError) as error:
            raise click.ClickException(str(error)) from error


class _Run:
    """One run on the project as it is now, whatever is changed in it meanwhile."""

    def __init__(
        self, directory: Path, files: tuple[str, ...], count: int, seed: int | None, processes: int
    ) -> None:
        self._directory = directory
        self._processes = processes
        self._project = directory / "project"
        copy_project(ROOT, self._project)
        self._suites = mutated_files(self._project, files)
        self._digest = digest_of(self._project)
        everything = [change for name in self._suites for change in changes(self._project / name, name)]
        known = equivalents(self._project)
        wanted = [c for c in everything if as_equivalent(c, self._source(c)) not in known]
        seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
        self._sample = random.Random(seed).sample(wanted, min(count, len(wanted)))
        self._record = Record(RECORDS / f"seed-{seed}.jsonl", self._digest)
        click.echo(
            f"seed {seed}: {len(self._sample)} of {len(everything)} defects, "
            f"{len(everything) - len(wanted)} equivalent ones left out"
        )

    def _source(self, change: Change) -> bytes:
        return (self._project / change.path).read_bytes()

    def execute(self) -> None:
        """Try what was not tried before, in copies of which each is used by one trial at a time."""
        left = [change for change in self._sample if change not in self._record.results]
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(self._processes):
            copies.put(Copy(self._project, self._directory / str(number)))
        with ThreadPoolExecutor(self._processes) as pool:
            needed = list(dict.fromkeys(self._suites[change.path] for change in left))
            reach = dict(zip(needed, pool.map(partial(self._reach, copies), needed), strict=True))
            try:
                trials = pool.map(
                    lambda change: _trial(copies, change, self._suites[change.path], reach), left
                )
                for done, (change, result) in enumerate(zip(left, trials, strict=True), 1):
                    self._record.add(change, result)
                    place = f"{change.path}:{change.line(self._source(change))}"
                    click.echo(f"{done:4} {result.outcome:8} {place} {result.by}"[:160])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        self._report()

    def _reach(self, copies: SimpleQueue[Copy], suite: Suite) -> Reach:
        """Of a run without defects, which is kept until a source or a test changes."""
        kept = RECORDS / f"reach-{self._digest}-{SUITES.index(suite)}.json"
        if kept.exists():
            return Reach.read(kept)
        copy = copies.get()
        try:
            reach = copy.baseline(suite)
        finally:
            copies.put(copy)
        reach.write(kept)
        return reach

    def _report(self) -> None:
        """Each survivor with its diff, the score of each file, and that of all."""
        results = self._record.results
        survivors = [c for c in self._sample if results[c].outcome is Outcome.SURVIVED]
        for change in sorted(survivors, key=lambda change: (change.path, change.start)):
            click.echo(f"\n{change.path} survived:\n{change.diff(self._source(change))}")
        click.echo("\nscore   noticed  file")
        planted = Counter(change.path for change in self._sample)
        survived = Counter(change.path for change in survivors)
        for path, number in sorted(planted.items()):
            _line(number - survived[path], number, path)
        _line(len(self._sample) - len(survivors), len(self._sample), "all")


def _trial(copies: SimpleQueue[Copy], change: Change, suite: Suite, reach: dict[Suite, Reach]) -> Result:
    copy = copies.get()
    try:
        return copy.trial(change, suite, reach[suite])
    finally:
        copies.put(copy)


def _line(noticed: int, number: int, name: str) -> None:
    click.echo(f"{noticed / number:5.0%} {noticed:4} of {number:3}  {name}")


if __name__ == "__main__":
    main()
