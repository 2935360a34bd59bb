"""`make bench-engine`: this engine, LevelDB, RocksDB and SQLite on the same operations, in one run.

Each engine has a process of its own. Every operation is measured by all of them in turn, in several rounds;
a figure is the median of the rounds, a ratio the median of the ratios of each round. See bench/ENGINE.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import click

from bench.engine import libraries
from bench.engine.contenders import CONTENDERS, PACKAGES
from bench.engine.report import Results, print_report

_GROWTH = 10
_WARM_WRITES = 0.2


class Process:
    """The process of one engine."""

    def __init__(self, engine: str) -> None:
        command = [sys.executable, "-m", "bench.engine.child", engine]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(self, name: str, **arguments: object) -> dict[str, float]:
        """Have something done; the figures that come back."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise click.ClickException("an engine's process ended: see its error above")
        answer: dict[str, float] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class Bench:
    """All engines, each with the directory that it works in."""

    def __init__(self, engines: list[str], directory: Path, seconds: float, rounds: int) -> None:
        self._engines = {engine: Process(engine) for engine in engines}
        self._directory = directory
        self._seconds = seconds
        self._rounds = rounds
        self.results: Results = {}

    def measure(
        self, row: str, name: str, *, rounds: int = 0, seeded: bool = False, **arguments: object
    ) -> None:
        """One operation by all engines in turn, in several rounds."""
        for number in range(rounds or self._rounds):
            seed = {"seed": number} if seeded else {}
            for engine, process in self._engines.items():
                figures = process.call(name, **arguments, **seed)
                self.results.setdefault(row, {}).setdefault(engine, []).append(figures)
        print(".", end="", flush=True)

    def all(self, name: str, **arguments: object) -> None:
        """Something that is not measured."""
        for process in self._engines.values():
            process.call(name, **arguments)

    @contextmanager
    def stores(self, name: str, *, durable: bool) -> Iterator[None]:
        """An empty store for each engine."""
        for engine, process in self._engines.items():
            process.call("open", directory=str(self._directory / f"{engine}-{name}"), durable=durable)
        yield
        self.all("remove")

    def writes(self) -> None:
        """Without a store that is filled: what a sync costs, and what is written without one."""
        for durable, kind in ((True, "durable"), (False, "not durable")):
            with self.stores(kind.replace(" ", "-"), durable=durable):
                self.all("writes", size=1, seconds=_WARM_WRITES)
                for size in (1, 100):
                    row = f"{kind} put, one at a time" if size == 1 else f"{kind} batch of {size}"
                    self.measure(row, "writes", size=size, seconds=self._seconds)
                if durable:
                    self.measure("durable put, flush or compaction beside", "writes_while_busy",
                                 seconds=4 * self._seconds)  # fmt: skip

    def reads(self, entries: int) -> None:
        """Fill in no order, then read: as it was filled, and merged into one run."""
        with self.stores(str(entries), durable=False):
            self.measure(f"{entries:,}: fill in no order", "fill", rounds=1, first=0, number=entries,
                         in_order=False)  # fmt: skip
            for state in ("as filled", "compacted"):
                where = f"{entries:,} {state}"
                for kind in ("hot", "cold", "absent"):
                    self.measure(f"{where}: get, {kind}", "gets", kind=kind, below=entries, seeded=True,
                                 seconds=self._seconds)  # fmt: skip
                self.measure(f"{where}: scan of all", "scan_all")
                self.measure(f"{where}: scan of 50", "short_scans", below=entries, seeded=True,
                             seconds=self._seconds)  # fmt: skip
                if state == "as filled":
                    self.measure(f"{entries:,}: memory", "memory", rounds=1)
                    self.measure(f"{entries:,}: compact", "compact", rounds=1)
            self.measure(f"{entries:,}: get and put in turn", "mixed", below=entries, seeded=True,
                         seconds=self._seconds)  # fmt: skip

    def in_order(self, entries: int) -> None:
        """Fill in the order of keys."""
        with self.stores("in-order", durable=False):
            self.measure(
                f"{entries:,}: fill in order", "fill", rounds=1, first=0, number=entries, in_order=True
            )

    def close(self) -> None:
        """End all processes."""
        for process in self._engines.values():
            process.close()


def _chosen(names: str) -> list[str]:
    """The engines, but for those whose package is missing."""
    engines = []
    for name in names.split(","):
        if name not in CONTENDERS:
            raise click.BadParameter(f"{name} is none of {', '.join(CONTENDERS)}")
        package = PACKAGES.get(name)
        if package and find_spec(package) is None:
            print(f"{name} is left out: {package} is not installed (make bench-engine installs it)")
        else:
            engines.append(name)
    return engines


@click.command()
@click.option(
    "--entries", default=40_000, show_default=True, help="The smaller size; the other is 10 times it."
)
@click.option("--seconds", default=0.4, show_default=True, help="Length of one measurement.")
@click.option("--rounds", default=3, show_default=True, help="How often each operation is measured.")
@click.option("--engines", default=",".join(CONTENDERS), show_default=True, help="Which take part.")
@click.option("--directory", default=".", help="Where the stores are made, and removed: choose the disk.")
@click.option("--libraries/--no-libraries", "with_libraries", default=True, help="Compare libraries too.")
def main(
    entries: int, seconds: float, rounds: int, engines: str, directory: str, with_libraries: bool
) -> None:
    """Measure the storage engine beside others."""
    chosen = _chosen(engines)
    with tempfile.TemporaryDirectory(prefix=".bench-engine-", dir=directory) as made:
        bench = Bench(chosen, Path(made), seconds, rounds)
        try:
            bench.writes()
            bench.in_order(entries)
            bench.reads(entries)
            bench.reads(_GROWTH * entries)
        finally:
            bench.close()
        print()
        print_report(bench.results, entries, _GROWTH * entries)
        if with_libraries:
            libraries.compare(Path(made))


if __name__ == "__main__":
    main()
