"""The states of one request, and the table of what moves it from one to another (drawn in docs/client.md)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class State(Enum):
    """Where a request is."""

    __hash__ = object.__hash__  # that of Enum is a function in Python, and this is on the way of each request

    CHOOSING = "a node is chosen, at once"
    UNROUTED = "no node can be reached: until one can, or its time is up"
    SUBMITTED = "it is with a node, or in the queue to it, until there is an answer"
    REFRESHING = "refused for a stale ring: until the cluster state is fetched, or its time is up"
    PAUSING = "before it is tried again"
    ENDED = "its caller has a reply or an error, or has left"


class Event(Enum):
    """What moves a request from one state to another."""

    __hash__ = object.__hash__  # as that of State

    CHOSEN = "the best node that can be reached is found"
    NONE_REACHED = "no node can be reached"
    REACHED = "a node can be reached again"
    REPLY = "a reply to the caller"
    ERROR = "an error that ends it: it may have been applied, has no chance, or there is no time to try again"
    RETRY = "an error after which it may be sent again"
    STALE = "it may be sent again, by a newer ring"
    FETCHED = "the cluster state is fetched, or cannot be"
    PAUSED = "the pause is over"
    TIME_UP = "its time is up"
    LEFT = "its caller has left, or the client is closed"


MOVES: Mapping[tuple[State, Event], State] = {
    (State.CHOOSING, Event.CHOSEN): State.SUBMITTED,
    (State.CHOOSING, Event.NONE_REACHED): State.UNROUTED,
    (State.UNROUTED, Event.REACHED): State.CHOOSING,
    (State.UNROUTED, Event.TIME_UP): State.ENDED,
    (State.UNROUTED, Event.LEFT): State.ENDED,
    (State.SUBMITTED, Event.RETRY): State.PAUSING,
    (State.SUBMITTED, Event.STALE): State.REFRESHING,
    (State.SUBMITTED, Event.REPLY): State.ENDED,
    (State.SUBMITTED, Event.ERROR): State.ENDED,
    (State.SUBMITTED, Event.LEFT): State.ENDED,
    (State.REFRESHING, Event.FETCHED): State.PAUSING,
    (State.REFRESHING, Event.TIME_UP): State.ENDED,
    (State.REFRESHING, Event.LEFT): State.ENDED,
    (State.PAUSING, Event.PAUSED): State.CHOOSING,
    (State.PAUSING, Event.TIME_UP): State.ENDED,
    (State.PAUSING, Event.LEFT): State.ENDED,
}
"""What moves a request, and where to; everything else is a defect."""

TIMED = frozenset({State.UNROUTED, State.REFRESHING, State.PAUSING})
"""States in which a request waits for its timer; in the others a time set before means nothing."""
