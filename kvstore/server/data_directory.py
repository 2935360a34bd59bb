"""The data directory belongs to one node of one cluster; a file in it says to which."""

from __future__ import annotations

import json
import os
from pathlib import Path

from kvstore.errors import ConfigError, WrongDataDirectory

IDENTITY = "IDENTITY"
_UNFINISHED = "IDENTITY.new"
_FORMAT = 1


def claim(directory: Path, node: str, cluster_id: str) -> Path:
    """Make sure that `directory` is this node's, making it if it is new; returns the engine's place in it.

    Raises WrongDataDirectory when it is another's, ConfigError when it cannot be used; changes nothing then.
    """
    identity = directory / IDENTITY
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if identity.exists():
            _check(identity, node, cluster_id)
        elif any(entry.name != _UNFINISHED for entry in directory.iterdir()):
            raise WrongDataDirectory(
                f"data directory {directory} is neither empty nor a kvstore data directory"
            )
        else:
            _write(identity, node, cluster_id)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise ConfigError(f"data directory {directory} cannot be used: not writable")
    except OSError as error:
        raise ConfigError(f"data directory {directory} cannot be used: {error.strerror}") from error
    return directory / "engine"


def find_store(directory: Path) -> Path:
    """The engine's place in a node's data directory; `directory` itself if it is a store, as checkpoints are.

    Raises ConfigError when it is neither, WrongDataDirectory when its identity is of another format.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory} is no directory")
    if (directory / IDENTITY).exists():
        _read(directory / IDENTITY)
    if (directory / "engine").is_dir():
        return directory / "engine"
    if (directory / "CURRENT").exists() or any(directory.glob("*.sst")):
        return directory
    raise ConfigError(f"{directory} is neither a node's data directory nor a store")


def _read(identity: Path) -> tuple[str, str]:
    """Node and cluster that a data directory belongs to."""
    try:
        found = json.loads(identity.read_text())
        owner, cluster, version = found["node"], found["cluster_id"], found["format"]
    except (ValueError, KeyError, TypeError):
        raise WrongDataDirectory(f"{identity} is damaged: whose data this is cannot be told") from None
    if version != _FORMAT:
        raise WrongDataDirectory(f"{identity} is of format {version}, this program knows format {_FORMAT}")
    return owner, cluster


def _check(identity: Path, node: str, cluster_id: str) -> None:
    owner, cluster = _read(identity)
    if (owner, cluster) != (node, cluster_id):
        raise WrongDataDirectory(
            f"data directory {identity.parent} belongs to node {owner} of cluster {cluster}, "
            f"not to node {node} of cluster {cluster_id}"
        )


def _write(identity: Path, node: str, cluster_id: str) -> None:
    # renamed into place and synced, so that a crash leaves all of it or nothing
    temporary = identity.with_name(_UNFINISHED)
    with temporary.open("w") as file:
        json.dump({"format": _FORMAT, "node": node, "cluster_id": cluster_id}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(identity)
    directory = os.open(identity.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
