"""What the memory store does at its bounds: it drops what may be dropped, and refuses the rest."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ports import Unavailable
from proxy.stores.memory import MemoryStore

TTL_S = 60.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_the_least_recently_used_value_goes_first() -> None:
    store = MemoryStore(max_entries=2)
    await store.put("a", b"1", TTL_S)
    await store.put("b", b"2", TTL_S)
    await store.get("a")
    await store.put("c", b"3", TTL_S)
    assert await store.get_many(["a", "b", "c"]) == [b"1", None, b"3"]


async def test_bytes_are_bounded_too() -> None:
    store = MemoryStore(max_bytes=10_000)
    for name in "abc":
        await store.put(name, bytes(4000), TTL_S)
    assert await store.get_many(["a", "b", "c"]) == [None, bytes(4000), bytes(4000)]


async def test_replacing_a_value_costs_no_other() -> None:
    store = MemoryStore(max_entries=2, max_bytes=10_000)
    await store.put("a", bytes(4000), TTL_S)
    await store.put("b", bytes(4000), TTL_S)
    await store.put("a", bytes(4500), TTL_S)
    assert await store.get_many(["a", "b"]) == [bytes(4500), bytes(4000)]


async def test_a_value_larger_than_the_store_is_refused_and_costs_no_other() -> None:
    store = MemoryStore(max_bytes=10_000)
    await store.put("a", b"1", TTL_S)
    with pytest.raises(Unavailable, match="larger than the memory store"):
        await store.put("b", bytes(10_000), TTL_S)
    assert await store.get("a") == b"1"


async def test_a_claim_outlives_every_flood_of_values() -> None:
    store = MemoryStore(max_entries=3)
    await store.put("claim", b"mine", TTL_S, only_if_absent=True)
    for n in range(100):
        await store.put(str(n), b"flood", TTL_S)
    assert await store.put("claim", b"theirs", TTL_S, only_if_absent=True) is False


async def test_claims_push_values_out_but_never_one_another() -> None:
    store = MemoryStore(max_entries=2)
    await store.put("value", b"", TTL_S)
    await store.put("first", b"", TTL_S, only_if_absent=True)
    await store.put("second", b"", TTL_S, only_if_absent=True)
    with pytest.raises(Unavailable, match="full of claims"):
        await store.put("third", b"", TTL_S, only_if_absent=True)
    with pytest.raises(Unavailable, match="full of claims"):
        await store.put("value", b"", TTL_S)
    assert await store.get_many(["value", "first", "second"]) == [None, b"", b""]


async def test_a_claim_can_be_rewritten_in_a_full_store_and_stays_one() -> None:
    store = MemoryStore(max_entries=1)
    await store.put("claim", b"held", TTL_S, only_if_absent=True)
    assert await store.put("claim", b"approved", TTL_S) is True
    with pytest.raises(Unavailable):
        await store.put("flood", b"", TTL_S)
    assert await store.get("claim") == b"approved"


async def test_a_claim_that_ends_makes_room() -> None:
    clock = Clock()
    store = MemoryStore(max_entries=1, clock=clock)
    await store.put("first", b"", TTL_S, only_if_absent=True)
    clock.now += TTL_S + 1
    assert await store.put("second", b"", TTL_S, only_if_absent=True) is True
    await store.take("second")
    assert await store.put("third", b"", TTL_S, only_if_absent=True) is True


@pytest.mark.parametrize("bounds", [{"max_entries": 10}, {"max_bytes": 2000}])
async def test_counters_are_never_dropped_to_begin_others(bounds: dict[str, int]) -> None:
    clock = Clock()
    store = MemoryStore(clock=clock, **bounds)
    await store.count("limit", 7, TTL_S)
    with pytest.raises(Unavailable, match="full of counters"):
        await asyncio.gather(*(store.count(str(n), 1, TTL_S) for n in range(100)))
    assert await store.count("limit", 1, TTL_S) == 8
    clock.now += TTL_S + 1
    assert await store.count("new", 1, TTL_S) == 1


async def test_values_do_not_crowd_counters_out() -> None:
    store = MemoryStore(max_entries=2)
    await store.count("limit", 7, TTL_S)
    for n in range(10):
        await store.put(str(n), b"", TTL_S)
    assert await store.count("limit", 1, TTL_S) == 8


puts = st.tuples(
    st.sampled_from("abcdef"), st.integers(0, 4000), st.sampled_from([0.0, 1.0, 5.0]), st.booleans()
)


@given(st.lists(st.tuples(puts, st.sampled_from([0.0, 0.5, 2.0])), max_size=40))
def test_no_order_of_puts_breaks_a_bound_or_a_claim(steps) -> None:
    async def run() -> None:
        clock = Clock()
        store = MemoryStore(max_entries=3, max_bytes=9000, clock=clock)
        claims: dict[str, tuple[bytes, float]] = {}
        for (key, size, ttl_s, claim), pause_s in steps:
            value = bytes(size)
            try:
                kept = await store.put(key, value, ttl_s, only_if_absent=claim)
            except Unavailable:
                kept = False
            if kept and (claim or key in claims):
                claims[key] = (value, clock.now + ttl_s)
            clock.now += pause_s
            claims = {key: claim for key, claim in claims.items() if claim[1] > clock.now}
            for name, (value, _) in claims.items():
                assert await store.get(name) == value
            held = [value for value in await store.get_many(list("abcdef")) if value is not None]
            assert len(held) <= 3
            assert sum(map(len, held)) <= 9000

    asyncio.run(run())
