"""Counters of limits: however many ask at once, wherever they ask, what is granted stays within the limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.guards.windows import Exceeded, Held, Limit, Use, Windows, in_words
from proxy.ports import Store, Unavailable
from proxy.stores.memory import MemoryStore
from proxy.stores.redis import RedisStore
from tests.stores import servers

NOON = 1_800_000_000.0 - 1_800_000_000 % 86_400 + 43_200


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def use(amount: int = 1, limit: int = 10, window: str = "minute", scope: str = "ann") -> Use:
    return Use(("principal", scope), Limit("tokens", limit, window), amount)


@pytest.fixture(params=["memory", "redis"])
async def replicas(request: pytest.FixtureRequest) -> AsyncIterator[list[Store]]:
    """The stores of two replicas, which are one."""
    if request.param == "memory":
        yield [store := MemoryStore(), store]
        return
    with servers.server() as server:
        async with AsyncExitStack() as stack:
            stores = [RedisStore(server.url, timeout_s=10.0) for _ in range(2)]
            for store in stores:
                stack.push_async_callback(store.close)
            yield list(stores)


async def attempt(windows: Windows, uses: list[Use]) -> list[Held] | None:
    try:
        return await windows.reserve(uses)
    except Exceeded:
        return None


async def test_of_200_at_once_on_two_replicas_the_limit_is_granted(replicas: list[Store]) -> None:
    clock = Clock()
    windows = [Windows(store, clock) for store in replicas]
    asked = [attempt(windows[n % 2], [use(1, 60), use(1, 120, "hour")]) for n in range(200)]
    granted = [held for held in await asyncio.gather(*asked) if held is not None]
    assert len(granted) <= 60
    # What was refused has been given back: all that is left can be had, and no more.
    left = [await attempt(windows[n % 2], [use(1, 60), use(1, 120, "hour")]) for n in range(61)]
    assert len(granted) + sum(held is not None for held in left) == 60


async def test_what_is_settled_leaves_its_difference(replicas: list[Store]) -> None:
    first, second = (Windows(store, Clock()) for store in replicas)
    (held,) = await first.reserve([use(100, 100)])
    with pytest.raises(Exceeded):
        await second.reserve([use(1, 100)])
    await first.settle([(held, 30)])
    assert await second.reserve([use(70, 100)])
    with pytest.raises(Exceeded):
        await second.reserve([use(1, 100)])


async def test_what_used_more_than_was_reserved_leaves_less() -> None:
    windows = Windows(MemoryStore(), Clock())
    (held,) = await windows.reserve([use(10, 100)])
    await windows.settle([(held, 150)])
    with pytest.raises(Exceeded):
        await windows.reserve([use(1, 100)])


@settings(max_examples=60, deadline=None)
@given(
    asked=st.lists(st.tuples(st.integers(1, 30), st.none() | st.integers(0, 40)), max_size=40),
    limit=st.integers(1, 60),
)
async def test_what_fits_is_granted_and_nothing_else(asked: list[tuple[int, int | None]], limit: int) -> None:
    windows, used = Windows(MemoryStore(), Clock()), 0
    for amount, settled in asked:
        held = await attempt(windows, [use(1, 1000, "day"), use(amount, limit)])
        assert (held is not None) == (used + amount <= limit)
        if held is not None:
            used += amount
            if settled is not None:
                await windows.settle([(held[1], settled)])
                used += settled - amount


@pytest.mark.parametrize(("window", "seconds"), [("minute", 60), ("hour", 3_600), ("day", 86_400)])
async def test_the_next_window_begins_anew(window: str, seconds: int) -> None:
    clock = Clock(NOON - NOON % 86_400 + 10)
    windows = Windows(MemoryStore(clock=clock), clock)
    await windows.reserve([use(10, 10, window)])
    with pytest.raises(Exceeded) as refused:
        await windows.reserve([use(1, 10, window)])
    assert refused.value.retry_after_s == seconds - 10
    clock.now += seconds - 10.5
    with pytest.raises(Exceeded) as refused:
        await windows.reserve([use(1, 10, window)])
    assert refused.value.retry_after_s == 1
    clock.now += 0.5
    assert await windows.reserve([use(10, 10, window)])


async def test_a_use_is_settled_in_the_window_in_which_it_began() -> None:
    clock = Clock()
    windows = Windows(MemoryStore(clock=clock), clock)
    (held,) = await windows.reserve([use(10, 10)])
    clock.now += 60
    await windows.settle([(held, 0)])
    await windows.reserve([use(10, 10)])
    with pytest.raises(Exceeded):
        await windows.reserve([use(1, 10)])


async def test_a_use_that_no_window_could_hold_is_not_to_be_waited_for() -> None:
    windows = Windows(MemoryStore(), Clock())
    with pytest.raises(Exceeded) as refused:
        await windows.reserve([use(5, 10, "day"), use(11, 10)])
    assert refused.value.retry_after_s is None
    assert await windows.reserve([use(10, 10, "day")])


class Failing(MemoryStore):
    """A store that fails after so many counts."""

    def __init__(self, after: int, error: BaseException) -> None:
        super().__init__()
        self.after, self.error = after, error

    async def count(self, key: str, amount: float, ttl_s: float) -> float:
        self.after -= 1
        if self.after == -1:
            raise self.error
        return await super().count(key, amount, ttl_s)


@pytest.mark.parametrize("error", [Unavailable("gone"), asyncio.CancelledError()])
async def test_what_was_counted_before_a_failure_is_given_back(error: BaseException) -> None:
    windows = Windows(Failing(1, error), Clock())
    with pytest.raises(type(error)):
        await windows.reserve([use(10, 10), use(1, 10, "day")])
    assert await windows.reserve([use(10, 10)])


async def test_what_cannot_be_settled_stays_counted() -> None:
    windows = Windows(Failing(1, Unavailable("gone")), Clock())
    (held,) = await windows.reserve([use(10, 10)])
    await windows.settle([(held, 0)])
    with pytest.raises(Exceeded):
        await windows.reserve([use(1, 10)])


async def test_scopes_and_units_do_not_share_a_counter() -> None:
    windows = Windows(MemoryStore(), Clock())
    limit = Limit("calls", 1, "minute")
    scopes = [("tool", "a", "b"), ("tool", "a\ud800", "b"), ("tools", "a", "b"), ("principal", "a"), ("a",)]
    for scope in scopes:
        assert await windows.reserve([Use(scope, limit, 1)])
    assert await windows.reserve([Use(("a",), Limit("requests", 1, "minute"), 1)])
    assert await windows.reserve([Use(("a",), Limit("calls", 1, "day"), 1)])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "1 s"), (120, "120 s"), (121, "3 min"), (7_200, "120 min"), (7_201, "3 h"), (86_400, "24 h")],
)
def test_a_wait_in_words(seconds: int, words: str) -> None:
    assert in_words(seconds) == words
