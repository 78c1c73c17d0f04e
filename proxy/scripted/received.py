"""What has arrived: the requests themselves, and counts that a test can wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from proxy.model import Fault, loads


@dataclass(frozen=True)
class ReceivedRequest:
    """One request as it arrived; ``raw`` is its body, with any content encoding undone."""

    method: str
    path: str
    """With its query string."""
    headers: Mapping[str, str]
    raw: bytes

    @cached_property
    def body(self) -> Any:
        """The body's JSON, read strictly, or None where it is none."""
        try:
            return loads(self.raw)
        except Fault:
            return None


class Tally:
    """A count that can be waited for."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = asyncio.Event()

    def add(self) -> None:
        """Count one more, and wake those who wait."""
        self.count += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def reach(self, count: int) -> None:
        """Wait until so many have been counted."""
        while self.count < count:
            await self._changed.wait()
