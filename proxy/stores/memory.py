"""The store of a single process: bounded, expiring, gone when the process ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from sys import getsizeof
from typing import NamedTuple

from cachetools import Cache, TLRUCache

from proxy.ports import Unavailable


class _Item(NamedTuple):
    value: bytes
    ttl_s: float
    size: int


class _Counter:
    """A running total; changed in place, so that counting never moves its expiry."""

    __slots__ = ("size", "total", "ttl_s")

    def __init__(self, ttl_s: float, size: int) -> None:
        self.total, self.ttl_s, self.size = 0.0, ttl_s, size


class MemoryStore:
    """A ``Store`` in this process's memory, for one event loop.

    ``max_entries`` and ``max_bytes`` (keys and values as Python holds them) bound the values; counters
    have bounds of their own, of the same size. When values reach a bound the least recently used goes:
    a lost value is a miss, which every caller takes safely. What was put ``only_if_absent`` claims its
    key, and a counter limits somebody: to drop one would lift the claim or the limit, so neither is ever
    dropped before its time, and ``Unavailable`` is raised when nothing else is left to drop.
    """

    def __init__(
        self,
        max_entries: int = 100_000,
        max_bytes: int = 256 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._values = TLRUCache[str, _Item, float](max_bytes, _expiry, clock, getsizeof=_size)
        self._claims = TLRUCache[str, _Item, float](max_bytes, _expiry, clock, getsizeof=_size)
        self._counters = TLRUCache[str, _Counter, float](max_bytes, _expiry, clock, getsizeof=_size)

    async def get(self, key: str) -> bytes | None:
        """The value under ``key``, or None."""
        item = self._find(key)
        return None if item is None else item.value

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values under ``keys``, in their order."""
        return [None if item is None else item.value for item in map(self._find, keys)]

    async def put(self, key: str, value: bytes, ttl_s: float, only_if_absent: bool = False) -> bool:
        """Keep ``value`` for ``ttl_s`` seconds; False where ``only_if_absent`` found another.

        Raises ``Unavailable`` where the value is larger than the store, or where claims fill it.
        """
        claimed = _found(self._claims, key)
        if only_if_absent and (claimed is not None or key in self._values):
            return False
        if Cache.__contains__(self._values, key):
            self._values.pop(key, None)
        if ttl_s <= 0:
            self._claims.pop(key, None)
            return True
        item = _Item(value, ttl_s, getsizeof(key) + getsizeof(value))
        if claimed is None:
            self._make_room(1, item.size)
        else:
            self._make_room(0, item.size - claimed.size)
        shelf = self._claims if only_if_absent or claimed is not None else self._values
        shelf[key] = item
        return True

    async def put_many(self, values: Mapping[str, bytes], ttl_s: float) -> None:
        """Keep each value for ``ttl_s`` seconds; raises ``Unavailable`` at the first that has no place."""
        for key, value in values.items():
            await self.put(key, value, ttl_s)

    async def take(self, key: str) -> bytes | None:
        """Get and delete; there is no await in between, so one of all takers receives."""
        item = self._values.pop(key, None) or self._claims.pop(key, None)
        return None if item is None else item.value

    async def keys(self, prefix: str) -> list[str]:
        """Every key that begins with ``prefix``."""
        return [
            key for shelf in (self._values, self._claims) for key in list(shelf) if key.startswith(prefix)
        ]

    async def count(self, key: str, amount: float, ttl_s: float) -> float:
        """Add to a counter that expires ``ttl_s`` seconds after it began; returns its new value.

        Raises ``Unavailable`` where there are too many counters to begin another.
        """
        if not isfinite(amount):
            raise ValueError(f"a counter cannot count {amount}: no limit could hold after it")
        counter = self._counters.get(key)
        if counter is None:
            counter = self._begin(key, ttl_s)
        counter.total += amount
        return counter.total

    def _find(self, key: str) -> _Item | None:
        return _found(self._values, key) or _found(self._claims, key)

    def _make_room(self, entries: int, size: int) -> None:
        if size > self._max_bytes:
            raise Unavailable(f"a value of {size} bytes is larger than the memory store: raise its bounds")
        while not self._fits(entries, size):
            if not self._values:
                raise Unavailable("the memory store is full of claims: raise its bounds, or use Redis")
            self._values.popitem()

    def _fits(self, entries: int, size: int) -> bool:
        values, claims = self._values, self._claims
        # What has expired still counts here: where even that leaves room, nobody has to look for it.
        if (
            Cache.__len__(values) + Cache.__len__(claims) + entries <= self._max_entries
            and _filled(values) + _filled(claims) + size <= self._max_bytes
        ):
            return True
        return (
            len(self._values) + len(self._claims) + entries <= self._max_entries
            and self._values.currsize + self._claims.currsize + size <= self._max_bytes
        )

    def _begin(self, key: str, ttl_s: float) -> _Counter:
        counter = _Counter(ttl_s, getsizeof(key) + 64)
        counters = self._counters
        if len(counters) >= self._max_entries or counters.currsize + counter.size > self._max_bytes:
            raise Unavailable("the memory store is full of counters: raise its bounds, or use Redis")
        counters[key] = counter
        return counter


def _found(shelf: TLRUCache[str, _Item, float], key: str) -> _Item | None:
    # Most keys are not here at all, expired or not: that is known without a look at the time.
    return shelf.get(key) if Cache.__contains__(shelf, key) else None


def _expiry(key: str, kept: _Item | _Counter, now: float) -> float:
    return now + kept.ttl_s


def _filled(shelf: TLRUCache[str, _Item, float]) -> float:
    filled: float = Cache.currsize.fget(shelf)  # type: ignore[attr-defined]
    return filled


def _size(kept: _Item | _Counter) -> int:
    return kept.size
