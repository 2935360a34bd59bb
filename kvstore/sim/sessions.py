"""What must hold of each client by itself in a bucket that it reads and writes through a session.

A read covers all that the same client has written or read there before, unless a session forgets it by then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from kvstore.sim.history import History, Read, Result, Write
from kvstore.versions import BucketName, UserKey

Covered = Callable[[bytes, frozenset[bytes], float], bool]
"""Whether values hold a value, or what may have replaced it before that time."""


def check_sessions(
    history: History, bucket: BucketName, remembered: float, covered: Covered
) -> tuple[int, str]:
    """How many facts were checked, and what is wrong; a key is `remembered` for so many seconds."""
    events: dict[tuple[str, UserKey], list[Read | Write]] = defaultdict(list)
    done: list[Read | Write] = [*history.reads, *(w for w in history.writes if w.result is Result.OK)]
    for event in sorted(done, key=lambda event: event.ended):
        if event.bucket == bucket:
            events[event.client, event.key].append(event)
    checked = 0
    for (client, key), ordered in events.items():
        known: dict[bytes, str] = {}
        used = 0.0
        for event in ordered:
            if event.began - used > remembered:
                known.clear()
            used = event.ended
            if isinstance(event, Write):
                if event.value is not None:
                    known[event.value] = "read your writes"
                continue
            for value, promise in known.items():
                checked += 1
                if not covered(value, event.values, event.ended):
                    return checked, (
                        f"{promise}: {client} read {bucket}/{key!r} at {event.began:.3f} and got "
                        f"{sorted(event.values)}: it lost {value!r}"
                    )
            known |= dict.fromkeys(event.values, "monotonic reads")
    return checked, ""
