"""`kvnode`: the command that runs one node. Flags win over environment, environment over the file."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import click

# what is wrong is said by kvnode itself, in one line
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from kvstore.config import (
    NAME,
    BucketSettings,
    Limits,
    QuorumSettings,
    bucket_from_settings,
    is_address,
    parse_bucket,
)
from kvstore.errors import ConfigError, Corruption, KVError
from kvstore.lsm import Compaction, Durability, Options
from kvstore.protocol.ring import DEFAULT_PARTITIONS, DEFAULT_REPLICAS
from kvstore.ring import initial_state, parse_members
from kvstore.server import log
from kvstore.server.data_directory import stored_cluster
from kvstore.server.server import EXIT_NOT_STOPPED, EXIT_STORAGE_FAILED, STOP_SIGNALS, ServerSettings, serve
from kvstore.server.settings_file import SettingsFile, read_settings_file

_ENGINE = Options()
_QUORUM = QuorumSettings()
_FLAGS_OF_QUORUM = ("hint_count", "hint_age", "hint_rate")
"""Settings of the table [quorum] that are flags too, as operators change them often."""

EXIT_CONFIG = 2
EXIT_STORAGE = 3

_EPILOG = f"""
\b
Example, the first of three nodes:
  kvnode --node n1 --data /var/lib/kvstore \\
         --initial-cluster n1=10.0.0.1:7001,n2=10.0.0.2:7001,n3=10.0.0.3:7001

Every flag can be given in the environment (KVNODE_NODE, KVNODE_LISTEN, ...; KVNODE_BUCKETS holds buckets
with blanks between them) or in the file (node = "n1", and a table [buckets.NAME] for each bucket; --hint-*
are in its table [quorum]). All nodes must be given the same members, partitions, replicas and buckets.

\b
More settings of requests, anti-entropy and failure detection are in the tables [quorum], [anti-entropy] and
[gossip] of the file: docs/settings.md.

\b
Exit codes:
   0  stopped as asked
   {EXIT_CONFIG}  a setting is wrong, the port is taken, or the data directory is another's
   {EXIT_STORAGE}  what is stored cannot be read, or the disk has no room for the store's directory and lock
  {EXIT_STORAGE_FAILED}  the storage failed while the node ran
  {EXIT_NOT_STOPPED}  the node was asked to stop and had to be ended; what it acknowledged is stored

\b
A node starts on a full disk: it serves reads, and refuses writes until there is space.
"""


def _read_file(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Make the file's settings the defaults of the flags."""
    file = read_settings_file(path) if path else SettingsFile()
    quorum = {name: getattr(file.node.quorum, name) for name in _FLAGS_OF_QUORUM}
    context.default_map = quorum | {name.replace("-", "_"): value for name, value in file.settings.items()}
    context.obj = file


@click.command(
    "kvnode",
    epilog=_EPILOG,
    context_settings={"auto_envvar_prefix": "KVNODE", "help_option_names": ["-h", "--help"]},
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    is_eager=True,
    callback=_read_file,
    expose_value=False,
    help="TOML file.",
)
@click.option("--node", required=True, help="Id of this node, one of those in --initial-cluster.")
@click.option(
    "--listen",
    default="",
    help="HOST:PORT to serve on; by default the node's own address in --initial-cluster.",
)
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="Data directory, of this node alone."
)
@click.option("--initial-cluster", required=True, help="All members: NODE=HOST:PORT[/ZONE[/HOST]],...")
@click.option(
    "--cluster-id",
    default="",
    help="Name of the cluster; by default that in the data directory, or made of its members' ids.",
)
@click.option(
    "--bucket",
    "buckets",
    multiple=True,
    help="Settings of a bucket: NAME:n=3,r=2,w=2,quorum=strict|sloppy,conflict=siblings|lww,ttl=SECONDS.",
)
@click.option(
    "--partitions",
    default=DEFAULT_PARTITIONS,
    show_default=True,
    help="Partitions of the ring, a power of two.",
)
@click.option("--replicas", default=DEFAULT_REPLICAS, show_default=True, help="Replicas of each key.")
@click.option("--max-value", default=Limits().value, show_default=True, help="Largest value in bytes.")
@click.option(
    "--hint-count",
    type=click.IntRange(min=0),
    default=_QUORUM.hint_count,
    show_default=True,
    help="Hints kept for one node; 0: none, only anti-entropy repairs what a node has missed.",
)
@click.option(
    "--hint-age",
    type=click.FloatRange(min=0, min_open=True),
    default=_QUORUM.hint_age,
    show_default=True,
    help="Seconds after which a hint is dropped; anti-entropy repairs what it held.",
)
@click.option(
    "--hint-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=_QUORUM.hint_rate,
    show_default=True,
    help="Hints a second that this node delivers at most; fewer under load.",
)
@click.option(
    "--durability",
    type=click.Choice([choice.value for choice in Durability]),
    default=_ENGINE.durability.value,
    show_default=True,
    help="What this node syncs: all before it acknowledges, the log ten times a second, or only tables.",
)
@click.option(
    "--compaction",
    type=click.Choice([choice.value for choice in Compaction]),
    default=_ENGINE.compaction.value,
    show_default=True,
    help="How tables are merged: for the least writing, or for the least reading and space.",
)
@click.option(
    "--memtable-bytes",
    type=click.IntRange(min=1),
    default=_ENGINE.memtable_bytes,
    show_default=True,
    help="Memory for writes before they become a table; up to five of them wait at a time.",
)
@click.option(
    "--cache-bytes",
    type=click.IntRange(min=0),
    default=_ENGINE.cache_bytes,
    show_default=True,
    help="Memory for blocks, indexes and filters that were read.",
)
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])
)
@click.option(
    "--log-format",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json"]),
    help="Lines for people, or an object a line.",
)
@click.version_option(package_name="kvstore")
@click.pass_obj
def kvnode(
    file: SettingsFile,
    node: str,
    listen: str,
    data: Path,
    initial_cluster: str,
    cluster_id: str,
    buckets: tuple[str, ...],
    partitions: int,
    replicas: int,
    max_value: int,
    hint_count: int,
    hint_age: float,
    hint_rate: float,
    durability: str,
    compaction: str,
    memtable_bytes: int,
    cache_bytes: int,
    log_level: str,
    log_format: log.Format,
) -> None:
    """Run one node of a kvstore cluster until SIGTERM or Ctrl-C."""
    log.set_up(log_level, log_format, node)
    if cluster_id and not NAME.fullmatch(cluster_id):
        raise ConfigError(f"cluster-id {cluster_id!r} is not of the form {NAME.pattern}")
    bucket_settings = _buckets(buckets, file, replicas)
    cluster_id = cluster_id or stored_cluster(data)
    state = initial_state(cluster_id, parse_members(initial_cluster), partitions, replicas, bucket_settings)
    member = state.member(node)
    if member is None:
        names = ", ".join(m.node for m in state.members)
        raise ConfigError(f"node {node!r} is not in the initial cluster ({names})")
    if not 1 <= max_value <= Limits.MAX_VALUE:
        raise ConfigError(f"max-value={max_value} must be between 1 and {Limits.MAX_VALUE}")
    host, port = _address(listen or member.address)
    quorum = replace(file.node.quorum, hint_count=hint_count, hint_age=hint_age, hint_rate=hint_rate)
    settings = replace(file.node, quorum=quorum, limits=Limits(value=max_value))
    engine = Options(
        memtable_bytes=memtable_bytes,
        cache_bytes=cache_bytes,
        durability=Durability(durability),
        compaction=Compaction(compaction),
    )
    asyncio.run(serve(ServerSettings(node, host, port, data, state, settings, engine)))


def _buckets(flags: tuple[str, ...], file: SettingsFile, replicas: int) -> list[BucketSettings]:
    given = [parse_bucket(text, replicas) for text in flags]
    named = {bucket.name for bucket in given}
    in_file = [
        bucket_from_settings(name, settings, replicas)
        for name, settings in file.buckets.items()
        if name not in named
    ]
    return given + in_file


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not is_address(text):
        raise ConfigError(f"listen={text!r} is not of the form HOST:PORT")
    return host, int(port)


def main() -> NoReturn:
    """Run the command; whatever is wrong is one line on stderr and an exit code."""
    for number in STOP_SIGNALS:
        signal.signal(number, _stop_at_once)
    try:
        kvnode.main(standalone_mode=False)
    except click.ClickException as error:
        _exit(error.format_message(), EXIT_CONFIG)
    except ConfigError as error:
        _exit(error, EXIT_CONFIG)
    except Corruption as error:
        _exit(f"{error}; started with an empty --data, the node gets all from the others", EXIT_STORAGE)
    except KVError as error:
        _exit(error, EXIT_STORAGE)
    sys.exit()


def _stop_at_once(*_: object) -> NoReturn:
    """Asked to stop before there is a node: nothing has been begun."""
    sys.exit()


def _exit(reason: object, code: int) -> NoReturn:
    print(f"kvnode: {reason}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
