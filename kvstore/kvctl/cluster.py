"""`kvctl cluster`: nodes as processes on this machine."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Group
from rich.live import Live

from kvstore.errors import ConfigError, NoNodeAvailable
from kvstore.kvctl.groups import CommandGroup
from kvstore.kvctl.invocation import Invocation
from kvstore.kvctl.nodes import COLUMNS, KEPT_COLUMNS, status_rows
from kvstore.kvctl.output import flush, tell
from kvstore.kvctl.tables import console, fitting, table
from kvstore.local.cluster import DEFAULT_DIRECTORY, DEFAULT_NODES, DEFAULT_PORT, LocalCluster

if TYPE_CHECKING:
    from kvstore.client.status import NodeStatus

_REFRESH_SECONDS = 1.0

Command = Callable[..., None]

_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DIRECTORY,
    show_default=True,
    help="Where the cluster keeps its data and logs.",
)


def _layout(command: Command) -> Command:
    """The options of a cluster that is laid out when it is first started."""
    for option in (
        click.option("--bucket", "buckets", multiple=True, help="Settings of a bucket, as for kvnode."),
        click.option("--port", type=int, help=f"The first node's port.  [default: {DEFAULT_PORT}]"),
        click.option("--nodes", type=int, help=f"How many nodes.  [default: {DEFAULT_NODES}]"),
    ):
        command = option(command)
    return command


def _laid_out(directory: Path, nodes: int | None, port: int | None, buckets: tuple[str, ...]) -> LocalCluster:
    """The cluster that is there, or a new one; what is not given stays as it is there."""
    there = None
    with suppress(ConfigError):  # there is none, or `create` says what is wrong with it
        there = LocalCluster.load(directory)
    known = len(there.nodes) if there else DEFAULT_NODES
    wanted = known if nodes is None else nodes
    kept = there is not None and port is None and wanted == known
    first_port = None if kept else DEFAULT_PORT if port is None else port
    settings = there.layout.buckets if there and not buckets else buckets
    return LocalCluster.create(directory, wanted, first_port, settings)


@click.group(cls=CommandGroup)
def cluster() -> None:
    """Run a cluster of several nodes on this machine."""


@cluster.command()
@_layout
@_directory
def start(nodes: int | None, port: int | None, buckets: tuple[str, ...], directory: Path) -> None:
    """Start all nodes that do not run, and wait until they serve.

    A cluster that is in DIRECTORY keeps its nodes, their ports and the settings of buckets.

    \b
    Examples:
      kvctl cluster start
      kvctl cluster start --nodes 5 --port 8001 --dir /tmp/five --bucket carts:w=3,r=1
    """
    found = _laid_out(directory, nodes, port, buckets)
    found.start()
    tell(f"{len(found.running())} nodes serve on {found.endpoints} (data and logs in {directory})")


@cluster.command()
@_directory
def stop(directory: Path) -> None:
    """Stop all nodes; their data stays."""
    stopped = LocalCluster.load(directory).stop()
    tell(f"stopped {', '.join(stopped)}" if stopped else "no node was running")


@cluster.command("status")
@_directory
@click.pass_obj
def status_(session: Invocation, directory: Path) -> None:
    """Show every node of the local cluster, running or not."""
    found = LocalCluster.load(directory)
    session.show(status_rows(_answers(found)), COLUMNS, KEPT_COLUMNS)


@cluster.command()
@click.argument("node")
@_directory
def kill(node: str, directory: Path) -> None:
    """End a node with SIGKILL, as a crash would."""
    killed = LocalCluster.load(directory).kill(node)
    tell(f"killed {node}" if killed else f"{node} was not running")


@cluster.command()
@click.argument("node")
@_directory
def restart(node: str, directory: Path) -> None:
    """Stop a node if it runs, start it, and wait until it serves."""
    found = LocalCluster.load(directory)
    found.stop_node(node)
    found.start([node])
    tell(f"{node} serves on {found.layout.addresses[node]}")


@cluster.command()
@_layout
@_directory
def run(nodes: int | None, port: int | None, buckets: tuple[str, ...], directory: Path) -> None:
    """Start all nodes, show their state until Ctrl-C, then stop them."""
    found = _laid_out(directory, nodes, port, buckets)
    # a closed terminal must not leave the nodes behind, either
    signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
    try:
        found.start()
        tell(f"{len(found.nodes)} nodes serve on {found.endpoints}; Ctrl-C stops them")
        flush()
        _watch(found)
    except KeyboardInterrupt:
        tell("stopping")
    finally:
        found.stop()


def _watch(found: LocalCluster) -> None:
    """Show the table again and again; where there is no terminal, only wait."""
    if not console().is_terminal:
        while True:
            time.sleep(_REFRESH_SECONDS)
    before = _operations(_answers(found))
    with Live(console=console(), auto_refresh=False) as live:
        while True:
            answers = _answers(found)
            now = _operations(answers)
            rate = max(0.0, (now - before) / _REFRESH_SECONDS)
            before = now
            rows = status_rows(answers)
            columns = fitting(rows, COLUMNS, KEPT_COLUMNS, live.console) or COLUMNS
            shown = table(rows, columns, title=f"{rate:,.0f} requests/s")
            live.update(Group(shown), refresh=True)
            time.sleep(_REFRESH_SECONDS)


def _operations(answers: dict[str, NodeStatus | NoNodeAvailable]) -> int:
    counters = [a.counters for a in answers.values() if not isinstance(a, NoNodeAvailable)]
    return sum(c.gets + c.puts + c.deletes for c in counters)


def _answers(found: LocalCluster) -> dict[str, NodeStatus | NoNodeAvailable]:
    statuses = found.statuses()
    return {
        node: statuses.get(node) or NoNodeAvailable({found.layout.addresses[node]: "does not answer"})
        for node in found.nodes
    }
