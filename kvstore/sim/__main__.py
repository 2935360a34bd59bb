"""`python -m kvstore.sim`: run seeds, print what they exercised, say how to replay one that fails."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import click

from kvstore.sim.run import Report, try_seed


def _nodes_of(seed: int, nodes: int | None) -> int:
    return nodes or (3 if seed % 2 else 5)


@click.command()
@click.option("--seed", type=int, help="Run this one seed, exactly as it ran before.")
@click.option("--seeds", default=20, show_default=True, help="How many seeds to run.")
@click.option("--start", default=1, show_default=True, help="The first of them.")
@click.option("--nodes", type=click.Choice(["3", "5"]), help="By default 3 for odd seeds, 5 for even ones.")
@click.option("--processes", default=2, show_default=True, help="How many seeds to run at once.")
def main(seed: int | None, seeds: int, start: int, nodes: str | None, processes: int) -> None:
    """Run whole clusters under virtual time, with faults, and check that they keep their promises."""
    began = time.monotonic()
    wanted = [seed] if seed is not None else list(range(start, start + seeds))
    sizes = [_nodes_of(each, int(nodes) if nodes else None) for each in wanted]
    if len(wanted) == 1:
        results = [try_seed(wanted[0], sizes[0])]
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            results = list(pool.map(try_seed, wanted, sizes))
    reports = [result for result in results if isinstance(result, Report)]
    _print_totals(reports, time.monotonic() - began)
    failures = [(s, n, r) for s, n, r in zip(wanted, sizes, results, strict=True) if isinstance(r, str)]
    for failed, size, why in failures:
        click.echo(f"seed {failed} with {size} nodes: {why}\n  replay: make sim SEED={failed}", err=True)
    sys.exit(1 if failures or not reports else 0)


def _print_totals(reports: list[Report], seconds: float) -> None:
    if len(reports) == 1:
        click.echo(f"seed {reports[0].seed}, {reports[0].nodes} nodes, trace {reports[0].trace}")
    events = sum(report.events for report in reports)
    checked = sum(report.checked for report in reports)
    click.echo(f"{len(reports)} seeds held in {seconds:.1f} s: {events:,} events, {checked:,} facts checked")
    for title, counters in (
        ("operations", [report.operations for report in reports]),
        ("faults", [report.faults for report in reports]),
        ("inside", [report.internals for report in reports]),
    ):
        total: Counter[str] = sum(counters, Counter())
        click.echo(f"{title}: {sum(total.values()):,}" if title != "inside" else f"{title}:")
        for name, count in sorted(total.items()):
            click.echo(f"  {count:>9,}  {name}")


if __name__ == "__main__":
    main()
