"""What tests of things that follow files have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(change: Callable[[], object], done: Callable[[], object]) -> None:
    """Make a change, again until the watch, which takes a moment to stand, has seen it.

    Bounded by the test's own time-out.
    """
    while not done():
        change()
        for _ in range(10):
            if done():
                return
            await asyncio.sleep(0.02)
