"""What nodes say of themselves: the records that clients get, for those who name their types.

They are those of the node, and are loaded with the first answer: with them come the engine and all that a
client needs for nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvstore.node.status import NodeStatus
    from kvstore.quorum.anti_entropy_status import AntiEntropyStatus

__all__ = ["AntiEntropyStatus", "NodeStatus"]
