"""Keeps a defect in one request, operation or message from all others that share its turn of the node."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVarTuple

from kvstore.errors import InternalError, KVError, StorageFailed

Report = Callable[[Exception], None]
"""Takes an exception that nobody expected: the shell logs it, the simulator ends its run."""

Ts = TypeVarTuple("Ts")


def told(error: Exception) -> KVError:
    """What a client is told of an exception: of one that nobody expected, that it is a defect."""
    return error if isinstance(error, KVError) else InternalError(f"the node met a defect: {error!r}")


class Guard:
    """Does one thing after the other, whatever becomes of each."""

    __slots__ = ("_report",)

    def __init__(self, report: Report) -> None:
        self._report = report

    def report(self, error: Exception) -> None:
        """Tell of a defect that somebody has caught; raises it if it is the end of the engine."""
        if isinstance(error, StorageFailed):
            raise error
        self._report(error)

    def run(self, action: Callable[[*Ts], object], *args: *Ts) -> bool:
        """Do `action`; whether that went well. An exception is reported and ends nothing else.

        Raises StorageFailed: after that nothing may be done but to end the process.
        """
        try:
            action(*args)
            return True
        except Exception as error:  # noqa: BLE001  (whatever it is, the others have nothing to do with it)
            self.report(error)
            return False
