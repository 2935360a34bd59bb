"""The outputs of a node: what the shell around it (gRPC or the simulator) must carry out."""

from __future__ import annotations

from typing import Protocol

from kvstore.lsm import Job
from kvstore.protocol.client import Reply
from kvstore.protocol.gossip import Status
from kvstore.protocol.table import PeerMessage
from kvstore.ring import ClusterState


class Outbox(Protocol):
    """Receives a node's outputs. None of these may call back into the node before it has returned."""

    def send(self, to: str, message: PeerMessage) -> None:
        """Send to another node, best effort: the network may lose, repeat and reorder it."""

    def reply(self, number: int, reply: Reply) -> None:
        """Answer the client request that came in under this number."""

    def set_timer(self, when: float) -> None:
        """Call `on_timer` at `when` (monotonic seconds) or soon after; replaces the earlier one."""

    def request_sync(self) -> None:
        """Sync the engine's log soon and call `on_durable`; asked once until that has happened."""

    def defect(self, error: Exception) -> None:
        """Take note of an exception that nobody expected: it has ended one thing, and the node goes on."""

    def member_changed(self, node: str, status: Status, reason: str) -> None:
        """Take note that this node believes something else of a member now, and why: for operators."""

    def on_state(self, state: ClusterState) -> None:
        """The members are others now: connect to those that are new, leave those that are none any more."""

    def start_job(self, job: Job) -> None:
        """Run an engine job in a worker and call `on_job_done` or `on_job_failed`."""
