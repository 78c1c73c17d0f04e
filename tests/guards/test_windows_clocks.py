"""Limits where clocks do not agree: no window is granted more than its limit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.guards.windows import WINDOWS, Exceeded, Held, Limit, Use, Windows
from proxy.stores.memory import MemoryStore

MIDNIGHT = 1_800_057_600.0


class Time:
    """The time as it is, by which a store lets go of what it keeps."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def replica(store: MemoryStore, time: Time, ahead_s: float) -> Windows:
    return Windows(store, lambda: time.now + ahead_s)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("apart_s", [0.5, 2.0])
async def test_a_replica_that_is_behind_does_not_begin_the_window_anew(window: str, apart_s: float) -> None:
    time = Time(MIDNIGHT - apart_s)
    store = MemoryStore(clock=time)
    behind, ahead = replica(store, time, 0), replica(store, time, apart_s)
    use = Use(("principal", "ann"), Limit("calls", 10, window), 10)
    await ahead.reserve([use])
    time.now = MIDNIGHT + WINDOWS[window] - apart_s / 2
    with pytest.raises(Exceeded):
        await behind.reserve([use])
    assert await ahead.reserve([use])


async def test_what_is_settled_at_the_end_of_a_window_gives_nothing_beyond_it() -> None:
    time = Time(MIDNIGHT - 1)
    store = MemoryStore(clock=time)
    behind, ahead = replica(store, time, 0), replica(store, time, 1)
    (held,) = await ahead.reserve([Use(("principal", "ann"), Limit("tokens", 10, "minute"), 10)])
    time.now = MIDNIGHT + 59.5
    await ahead.settle([(held, 4)])
    with pytest.raises(Exceeded):
        await behind.reserve([Use(("principal", "ann"), Limit("tokens", 10, "minute"), 7)])


@settings(deadline=None, max_examples=300)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([-2.0, -0.5, 0.0, 1.5]),
            st.integers(1, 10),
            st.sampled_from([0.0, 0.7, 28.5, 31.0, 59.0]),
            st.booleans(),
        ),
        max_size=40,
    )
)
async def test_no_window_is_granted_more_than_its_limit(steps: list[tuple[float, int, float, bool]]) -> None:
    time = Time(MIDNIGHT - 1)
    store = MemoryStore(clock=time)
    limit = Limit("tokens", 10, "minute")
    granted: dict[str, int] = {}
    open_: list[Held] = []
    for ahead_s, amount, pause_s, ends in steps:
        try:
            held = await replica(store, time, ahead_s).reserve([Use(("a",), limit, amount)])
        except Exceeded:
            held = []
        for one in held:
            granted[one.key] = granted.get(one.key, 0) + amount
            assert granted[one.key] <= limit.amount
        open_ += held
        time.now += pause_s
        if ends and open_:
            done = open_.pop()
            await replica(store, time, ahead_s).give_back([done])
            granted[done.key] -= done.use.amount
