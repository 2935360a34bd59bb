"""`kvctl`: the command-line tool for people who use or operate a cluster."""

from __future__ import annotations

import os
import sys

import click

# its lines about connections that come and go are no message for a person
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from kvstore.errors import KVError
from kvstore.kvctl import cluster, counters, data, explain, files, hints, keys, nodes, repair
from kvstore.kvctl.failures import EXIT_CODES, exit_code
from kvstore.kvctl.invocation import DEFAULT_ENDPOINTS, Invocation

_EPILOG = f"""
\b
Examples:
  kvctl cluster start
  kvctl put carts user:1 '{{"items": 3}}'
  kvctl get carts user:1
  kvctl import airports.jsonl --key icao --bucket airports

{EXIT_CODES}

\b
Completion, for bash (zsh and fish likewise):
  eval "$(_KVCTL_COMPLETE=bash_source kvctl)"
"""


@click.group(epilog=_EPILOG)
@click.option(
    "--endpoints",
    envvar="KVCTL_ENDPOINTS",
    help=f"HOST:PORT,... of some nodes; by default the local cluster here, else {DEFAULT_ENDPOINTS}.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Seconds for each request.",
)
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form."
)
@click.version_option(package_name="kvstore")
@click.pass_context
def kvctl(context: click.Context, endpoints: str | None, timeout: float, output: str) -> None:
    """Use and operate a kvstore cluster."""
    context.obj = Invocation(endpoints, timeout, output)


for command in (
    cluster.cluster,
    nodes.status,
    nodes.ring,
    repair.repair,
    hints.hints,
    counters.counters,
    explain.explain,
    keys.put,
    keys.get,
    keys.delete,
    files.import_,
    files.export,
    data.data,
):
    kvctl.add_command(command)


def main() -> None:
    """Run kvctl; an error is one line on stderr and an exit code."""
    try:
        kvctl()
    except KVError as error:
        click.echo(f"kvctl: {error}", err=True)
        sys.exit(exit_code(error))


if __name__ == "__main__":
    main()
