"""What is counted of frames and messages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TrafficCounters:
    """Frames and messages on the node's connections; the server counts them, the core leaves them at 0."""

    frames_sent: int = 0
    """Frames sent to other nodes."""
    messages_sent: int = 0
    """Messages in these."""
    messages_dropped: int = 0
    """Messages to nodes that were not connected, or too slow to read."""
    frames_received: int = 0
    """Frames of other nodes."""
    messages_received: int = 0
    """Messages in these."""
    frames_refused: int = 0
    """Frames of other nodes of which something was wrong: nothing of them was carried out."""
    session_frames_received: int = 0
    """Frames of clients' sessions."""
    session_calls_received: int = 0
    """Calls in these."""
