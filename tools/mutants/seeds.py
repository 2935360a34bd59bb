"""`python -m tools.mutants.seeds COUNT`: seeds of the simulator until one fails."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kvstore.sim.run import SAFETY_SECONDS, Plan, Report, try_plan
from kvstore.sim.shape import nodes_of
from tools.mutants.tracing import SEEDS, start


@click.command()
@click.argument("count", type=int)
@click.option("--trace", is_flag=True, help="Note which lines they run.")
def main(count: int, trace: bool) -> None:
    """Run the first COUNT seeds."""
    coverage = start(Path.cwd()) if trace else None
    if coverage is not None:
        coverage.load()
        coverage.switch_context(SEEDS)
    for seed in range(1, count + 1):
        result = try_plan(Plan(seed, nodes_of(seed), SAFETY_SECONDS))
        if not isinstance(result, Report):
            click.echo(f"seed {seed} failed: {result}")
            sys.exit(1)
    if coverage is not None:
        coverage.stop()
        coverage.save()


if __name__ == "__main__":
    main()
