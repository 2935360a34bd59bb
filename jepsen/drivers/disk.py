"""The disks of nodes: a file system of its own for each where this process is root, else a directory."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
from pathlib import Path
from typing import Protocol

from jepsen.system import CommandFailed, missing, run

_IMAGE_BYTES = 1024 * 1024 * 1024  # sparse: only what is written takes space
_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, struct.pack("I", 2)  # EXT4_IOC_SHUTDOWN
_FILLER = "filler"
_SPARE_BYTES = 4096


class Disk(Protocol):
    """Where one node keeps its data. `loses_power` and `fills` say what only some drivers can do."""

    loses_power: bool
    fills: bool

    @property
    def data(self) -> Path:
        """The node's data directory."""
        ...

    def open(self) -> None:
        """Make the disk usable."""
        ...

    def wipe(self) -> None:
        """Take away all data of a node that does not run."""
        ...

    def fill(self) -> None:
        """Leave no space."""
        ...

    def empty(self) -> None:
        """Give the space back."""
        ...

    def cut_power(self) -> None:
        """Lose what was not synced; nothing can be written any more, which ends the node."""
        ...

    def power_on(self) -> None:
        """After `cut_power`, when the node has ended: what was synced is there again."""
        ...

    def close(self) -> None:
        """Take the disk away."""
        ...


def loop_reason_to_skip() -> str:
    """Why there can be no file systems of our own here; empty if there can."""
    if reason := missing("mkfs.ext4", "mount", "umount"):
        return reason
    return "" if Path("/dev/loop-control").exists() else "no loop devices"


class Directory:
    """A plain directory: it can neither fill up nor lose power, for it is everybody's disk."""

    loses_power = fills = False

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"

    def open(self) -> None:
        """See Disk."""

    def wipe(self) -> None:
        """See Disk."""
        shutil.rmtree(self.data, ignore_errors=True)

    def fill(self) -> None:
        """See Disk: not here."""
        raise NotImplementedError

    def empty(self) -> None:
        """See Disk: not here."""
        raise NotImplementedError

    def cut_power(self) -> None:
        """See Disk: not here."""
        raise NotImplementedError

    def power_on(self) -> None:
        """See Disk: not here."""
        raise NotImplementedError

    def close(self) -> None:
        """See Disk."""


class LoopDisk:
    """An ext4 on a loop device, whose power can be cut."""

    loses_power = fills = True

    def __init__(self, directory: Path) -> None:
        self._image = directory / "disk.ext4"
        self._mount = directory / "disk"

    @property
    def data(self) -> Path:
        """See Disk."""
        return self._mount / "data"

    def open(self) -> None:
        """See Disk."""
        self._mount.mkdir(parents=True)
        with self._image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        # nothing is kept back for root: the nodes may be root
        run("mkfs.ext4", "-q", "-m", "0", self._image)
        self.power_on()

    def wipe(self) -> None:
        """See Disk."""
        shutil.rmtree(self.data, ignore_errors=True)

    def fill(self) -> None:
        """See Disk."""
        descriptor = os.open(self._mount / _FILLER, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            step, size = _IMAGE_BYTES, 0
            while step >= _SPARE_BYTES:
                try:
                    os.posix_fallocate(descriptor, size, step)
                    size += step
                except OSError:
                    step //= 2
        finally:
            os.close(descriptor)

    def empty(self) -> None:
        """See Disk."""
        (self._mount / _FILLER).unlink(missing_ok=True)

    def cut_power(self) -> None:
        """See Disk."""
        descriptor = os.open(self._mount, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(descriptor)

    def power_on(self) -> None:
        """See Disk."""
        if os.path.ismount(self._mount):
            run("umount", self._mount)
        run("mount", "-o", "loop", self._image, self._mount)

    def close(self) -> None:
        """See Disk."""
        if os.path.ismount(self._mount):
            try:
                run("umount", self._mount)
            except CommandFailed:
                run("umount", "--lazy", self._mount)
        self._image.unlink(missing_ok=True)
