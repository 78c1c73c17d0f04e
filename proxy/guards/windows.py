"""Counting against limits, so that many replicas together keep to them.

A limit holds for a minute, an hour or a day of the clock (UTC). What is to be used is added to the window's
counter first, in one atomic step, and given back where that was too much. So what has been granted never
adds up to more than the limit, however many ask at once and wherever they ask.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

from proxy.ports import Store, Unavailable

log = logging.getLogger("callgate.limits")

Unit = Literal["calls", "requests", "tokens", "micro_usd"]

WINDOWS = {"minute": 60, "hour": 3_600, "day": 86_400}
"""Seconds by name."""

# A counter that ended with its window by one replica's clock would begin anew for one whose clock is behind.
_CLOCKS_DIFFER_S = 10


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so much of a unit in a window. Money is counted in millionths of a US dollar."""

    unit: Unit
    amount: int
    window: str
    """``minute``, ``hour`` or ``day``."""


@dataclass(frozen=True, slots=True)
class Use:
    """What somebody would use of one limit."""

    scope: tuple[str, ...]
    """Whose counter it is."""
    limit: Limit
    amount: int


@dataclass(frozen=True, slots=True)
class Held:
    """A use that was counted, in the window in which it began."""

    use: Use
    key: str


class Exceeded(Exception):
    """A limit has no room for a use."""

    def __init__(self, use: Use, retry_after_s: int | None) -> None:
        super().__init__(use.scope[0])
        self.use, self.limit = use, use.limit
        self.retry_after_s = retry_after_s
        """Seconds until the next window; None where the use is larger than the limit itself."""


class Windows:
    """The counters of all limits, in a store that replicas share. ``clock``: seconds, the same for all."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock

    async def reserve(self, uses: Sequence[Use]) -> list[Held]:
        """Count all of the uses or none of them; raises ``Exceeded``, and ``Unavailable``."""
        now = self._clock()
        held: list[Held] = []
        try:
            for use in uses:
                if use.amount > use.limit.amount:
                    raise Exceeded(use, None)
                key = _key(use, now)
                total = await self._count(key, use.amount, use.limit)
                held.append(Held(use, key))
                if total > use.limit.amount:
                    raise Exceeded(use, _left_s(use.limit, now))
        except BaseException:
            await self.give_back(held)
            raise
        return held

    async def give_back(self, held: Sequence[Held]) -> None:
        """Take back what was counted, as well as can be: what cannot be taken back stays counted."""
        await self.settle([(one, 0) for one in held])

    async def settle(self, used: Sequence[tuple[Held, int]]) -> None:
        """Replace what was counted by what was used; where the store fails, what was counted stands."""
        for held, amount in used:
            if (more := amount - held.use.amount) == 0:
                continue
            try:
                await self._count(held.key, more, held.use.limit)
            except Unavailable as exc:
                log.warning("a use stays counted as it was reserved: %s", exc)

    async def _count(self, key: str, amount: int, limit: Limit) -> float:
        return await self._store.count(key, amount, WINDOWS[limit.window] + _CLOCKS_DIFFER_S)


def _key(use: Use, now: float) -> str:
    # Names come from clients and operators: a digest has one length, and no two scopes share a spelling.
    whose = hashlib.sha256(repr(use.scope).encode()).hexdigest()[:32]
    limit = use.limit
    return f"limits:{limit.unit}:{limit.window}:{int(now // WINDOWS[limit.window])}:{whose}"


def _left_s(limit: Limit, now: float) -> int:
    seconds = WINDOWS[limit.window]
    return max(1, ceil(seconds - now % seconds))


def in_words(seconds: float) -> str:
    """A time to wait, for people and models to read."""
    if seconds <= 120:
        return f"{seconds:.0f} s"
    return f"{ceil(seconds / 60)} min" if seconds <= 7_200 else f"{ceil(seconds / 3_600)} h"
