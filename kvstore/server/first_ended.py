"""Doing several things until one of them ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def first_ended(*works: Coroutine[Any, Any, None]) -> None:
    """Carry these out until one ends, then end the others; raises what one of them has raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    error = next((end for end in ends if isinstance(end, Exception)), None)
    # its traceback would keep what the frames hold, in a circle that waits for a rare pass of the collector
    del ends, tasks
    if error is not None:
        try:
            raise error.with_traceback(None)
        finally:
            del error
