"""Finding the cluster state at any of some endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kvstore.client.unary import fetch_state
from kvstore.errors import KVError, NoNodeAvailable
from kvstore.ring import ClusterState


async def discover(endpoints: Sequence[str], timeout: float) -> ClusterState:
    """The cluster state from whichever endpoint answers first; raises NoNodeAvailable."""
    tasks = [asyncio.create_task(_ask(endpoint, timeout)) for endpoint in endpoints]
    problems: dict[str, str] = {}
    try:
        for finished in asyncio.as_completed(tasks):
            try:
                return await finished
            except NoNodeAvailable as error:
                problems.update(error.errors)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    raise NoNodeAvailable({endpoint: problems[endpoint] for endpoint in endpoints})


async def _ask(endpoint: str, timeout: float) -> ClusterState:
    try:
        return await fetch_state(endpoint, timeout)
    except NoNodeAvailable:
        raise
    except KVError as error:
        raise NoNodeAvailable({endpoint: str(error)}) from error
