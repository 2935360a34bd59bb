"""The data directory belongs to one node of one cluster; a file in it says to which.

See docs/data-directory.md.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from pathlib import Path

from kvstore.errors import ConfigError, WrongDataDirectory
from kvstore.server.identity import Identity, difference, encode, read

IDENTITY = "IDENTITY"
_UNFINISHED = "IDENTITY.new"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

_log = logging.getLogger(__name__)


def claim(directory: Path, identity: Identity) -> Path:
    """Make sure that `directory` is this node's, making it if it is new; returns the engine's place in it.

    Raises WrongDataDirectory when it is another's, or holds what was stored with other settings, ConfigError
    when it cannot be used; changes nothing then. One that is this node's already needs no space.
    """
    file = directory / IDENTITY
    try:
        _make(directory)
        if file.exists():
            _check(file, identity)
        elif any(entry.name != _UNFINISHED for entry in directory.iterdir()):
            raise WrongDataDirectory(
                f"data directory {directory} is neither empty nor a kvstore data directory"
            )
        else:
            _write(file, identity)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise ConfigError(f"data directory {directory} cannot be used: not writable")
    except OSError as error:
        raise ConfigError(f"data directory {directory} cannot be used: {error.strerror}") from error
    return directory / "engine"


def stored_cluster(directory: Path) -> str:
    """The cluster that a data directory belongs to; empty: none, or it cannot be read, as `claim` then tells.

    Raises WrongDataDirectory when its identity is damaged or of another format.
    """
    try:
        _, cluster, _ = read(directory / IDENTITY)
    except OSError:
        return ""
    return cluster


def find_store(directory: Path) -> Path:
    """The engine's place in a node's data directory; `directory` itself if it is a store, as checkpoints are.

    Raises ConfigError when it is neither, WrongDataDirectory when its identity is of another format.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory} is no directory")
    if (directory / IDENTITY).exists():
        try:
            read(directory / IDENTITY)
        except OSError as error:
            raise ConfigError(f"{directory / IDENTITY} cannot be read: {error.strerror}") from error
    if (directory / "engine").is_dir():
        return directory / "engine"
    if (directory / "CURRENT").exists() or any(directory.glob("*.sst")):
        return directory
    raise ConfigError(f"{directory} is neither a node's data directory nor a store")


def _make(directory: Path) -> None:
    """Make a directory that only its owner may look into, and what is missing above it, durably."""
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for made in missing:
        _sync(made.parent)


def _check(file: Path, given: Identity) -> None:
    owner, cluster, stored = read(file)
    if (owner, cluster) != (given.node, given.cluster_id):
        raise WrongDataDirectory(
            f"data directory {file.parent} belongs to node {owner} of cluster {cluster}, "
            f"not to node {given.node} of cluster {given.cluster_id}"
        )
    if stored is None:
        _renew(file, given)
    elif changed := difference(stored, given):
        raise WrongDataDirectory(f"data directory {file.parent} holds what was stored with {changed}")


def _renew(file: Path, given: Identity) -> None:
    """Format 1 did not keep the settings: those that are given now have to be the right ones."""
    try:
        _write(file, given)
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        _log.warning("%s stays of format 1 until there is space: %s", file, error.strerror)


def _write(file: Path, identity: Identity) -> None:
    # renamed into place and synced, so that a crash leaves all of it or nothing
    temporary = file.with_name(_UNFINISHED)
    temporary.unlink(missing_ok=True)  # of a start that crashed
    # a new file, and no name that somebody has made lead elsewhere
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(encode(identity))
            out.flush()
            os.fsync(out.fileno())
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    temporary.rename(file)
    _sync(file.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
