"""`make bench-engine`: this engine, LevelDB, RocksDB and SQLite on the same operations, in one run.

Each engine has a process of its own for each size. Every operation is measured by all of them in turn, in
several rounds; a figure is the median of the rounds, a ratio the median of the ratios of each round. See
bench/ENGINE.md.
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
from bench.engine.contenders import BUFFER, CONTENDERS, PACKAGES
from bench.engine.report import BATCHES, MAINTENANCE, Results, print_report

_GROWTH = 10
_WARM_WRITES = 0.2
_LARGE = 1024 * 1024 * 1024
"""A buffer that is not full in the time of a measurement."""


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
    """All engines at all sizes, each with the directory that it works in."""

    def __init__(
        self, engines: list[str], sizes: list[int], directory: Path, seconds: float, rounds: int
    ) -> None:
        self._sizes = {size: {engine: Process(engine) for engine in engines} for size in sizes}
        self._engines = self._sizes[sizes[0]]
        self._directory = directory
        self._seconds = seconds
        self._rounds = rounds
        self.results: Results = {}

    def measure(self, row: str, name: str, *, rounds: int = 0, **arguments: object) -> None:
        """One operation by all engines in turn, in several rounds."""
        for _ in range(rounds or self._rounds):
            for engine, process in self._engines.items():
                figures = process.call(name, **arguments)
                self.results.setdefault(row, {}).setdefault(engine, []).append(figures)
        print(".", end="", flush=True)

    def measure_sizes(
        self, row: str, name: str, *, rounds: int = 0, of: str | None = None, **arguments: object
    ) -> None:
        """One operation by all engines, each at all sizes in turn, so that the sizes can be compared.

        `of` names the argument that is the size; such a measurement has seeds.
        """
        for number in range(rounds or self._rounds):
            for engine in self._engines:
                for size, engines in self._sizes.items():
                    sized = {of: size, "seed": number} if of else {}
                    figures = engines[engine].call(name, **arguments, **sized)
                    self.results.setdefault(f"{size:,}{row}", {}).setdefault(engine, []).append(figures)
        print(".", end="", flush=True)

    def all(self, name: str, **arguments: object) -> None:
        """Something that is not measured."""
        for process in self._engines.values():
            process.call(name, **arguments)

    @contextmanager
    def stores(self, name: str, *, durable: bool, buffer: int = BUFFER) -> Iterator[None]:
        """An empty store for each engine."""
        for engine, process in self._engines.items():
            directory = str(self._directory / f"{engine}-{name}")
            process.call("open", directory=directory, durable=durable, buffer=buffer)
        yield
        self.all("remove")

    @contextmanager
    def filled(self) -> Iterator[None]:
        """A store of each size for each engine, filled in no order."""
        for size, engines in self._sizes.items():
            for engine, process in engines.items():
                process.call("open", directory=str(self._directory / f"{engine}-{size}"), durable=False)
                figures = process.call("fill", first=0, number=size, in_order=False)
                self.results.setdefault(f"{size:,}: fill in no order", {})[engine] = [figures]
        yield
        for engines in self._sizes.values():
            for process in engines.values():
                process.call("remove")

    def writes(self) -> None:
        """Without a store that is filled: what a sync costs, and what is written without one."""
        for durable, kind in ((True, "durable"), (False, "not durable")):
            with self.stores(kind.replace(" ", "-"), durable=durable):
                self.all("writes", size=1, seconds=_WARM_WRITES)
                for size in (1, 100):
                    row = f"{kind} put, one at a time" if size == 1 else f"{kind} batch of {size}"
                    self.measure(row, "writes", size=size, seconds=self._seconds)
        for _ in range(self._rounds):
            for engine, process in self._engines.items():
                for buffer, row in ((_LARGE, BATCHES), (BUFFER, MAINTENANCE)):
                    figures = self.beside_batches(process, engine, buffer)
                    self.results.setdefault(row, {}).setdefault(engine, []).append(figures)
        print(".", end="", flush=True)

    def beside_batches(self, process: Process, engine: str, buffer: int) -> dict[str, float]:
        """Puts beside batches in a store of their own: what one engine still compacts would slow the next."""
        directory = str(self._directory / f"{engine}-beside")
        process.call("open", directory=directory, durable=True, buffer=buffer)
        figures = process.call("writes_beside_batches", seconds=4 * self._seconds, busy=buffer == BUFFER)
        process.call("remove")
        return figures

    def reads(self) -> None:
        """Fill in no order, then read: as it was filled, and merged into one run."""
        with self.filled():
            for state in ("as filled", "compacted"):
                for kind in ("hot", "cold", "absent"):
                    # two goals are of cold gets, one of them a ratio that is near its bound
                    rounds = 3 * self._rounds if kind == "cold" else self._rounds
                    self.measure_sizes(f" {state}: get, {kind}", "gets", kind=kind, of="below",
                                       rounds=rounds, seconds=self._seconds)  # fmt: skip
                self.measure_sizes(f" {state}: scan of all", "scan_all")
                self.measure_sizes(f" {state}: scan of 50", "short_scans", of="below", seconds=self._seconds)
                if state == "as filled":
                    self.measure_sizes(": memory", "memory", rounds=1)
                    self.measure_sizes(": compact", "compact", rounds=1)
            self.measure_sizes(": get and put in turn", "mixed", of="below", seconds=self._seconds)

    def in_order(self, entries: int) -> None:
        """Fill in the order of keys."""
        with self.stores("in-order", durable=False):
            self.measure(
                f"{entries:,}: fill in order", "fill", rounds=1, first=0, number=entries, in_order=True
            )

    def close(self) -> None:
        """End all processes."""
        for engines in self._sizes.values():
            for process in engines.values():
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
        bench = Bench(chosen, [entries, _GROWTH * entries], Path(made), seconds, rounds)
        try:
            bench.writes()
            bench.in_order(entries)
            bench.reads()
        finally:
            bench.close()
        print()
        print_report(bench.results, entries, _GROWTH * entries)
        if with_libraries:
            libraries.compare(Path(made))


if __name__ == "__main__":
    main()
