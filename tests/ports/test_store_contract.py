"""What every store promises. Times are short, for stores whose clock can only be waited for."""

from __future__ import annotations

import asyncio

import pytest

from proxy.ports import Store

TTL_S = 0.2
PAST_TTL_S = 0.25
LONG_S = 60.0


async def test_a_key_that_was_never_put_has_no_value(store: Store, key: str) -> None:
    assert await store.get(key) is None
    assert await store.take(key) is None


@pytest.mark.parametrize(
    "value",
    [b"", b"text", "é☃🎈".encode(), bytes(range(256)), b"\r\n\x00$3\r\n", b"7", b"x" * 3_000_000],
    ids=["empty", "text", "utf8", "every byte", "control", "digit", "3 MB"],
)
async def test_values_come_back_byte_for_byte(store: Store, key: str, value: bytes) -> None:
    assert await store.put(key, value, LONG_S) is True
    assert await store.get(key) == value
    assert await store.get_many([key]) == [value]
    assert await store.take(key) == value


@pytest.mark.parametrize("name", ["", "a:b", "a b", "*", "é☃🎈", "line\nbreak", "{tag}", "k" * 2000])
async def test_keys_are_opaque(store: Store, key: str, name: str) -> None:
    await store.put(key + name, b"mine", LONG_S)
    assert await store.get(key + name) == b"mine"
    assert await store.get(key + name + "x") is None


async def test_put_replaces(store: Store, key: str) -> None:
    await store.put(key, b"old", LONG_S)
    assert await store.put(key, b"new", LONG_S) is True
    assert await store.get(key) == b"new"


async def test_get_many_answers_in_the_order_asked(store: Store, key: str) -> None:
    for name in "abc":
        await store.put(key + name, name.encode(), LONG_S)
    asked = [key + name for name in ("c", "missing", "a", "b", "a")]
    assert await store.get_many(asked) == [b"c", None, b"a", b"b", b"a"]
    assert await store.get_many([]) == []


async def test_many_values_are_kept_at_once(bench, key: str) -> None:
    many = {f"{key}{number}": str(number).encode() for number in range(20)}
    await bench.store.put(f"{key}0", b"old", TTL_S)
    await bench.store.put_many(many, LONG_S)
    await bench.store.put_many({}, LONG_S)
    await bench.advance(PAST_TTL_S)
    assert await bench.store.get_many(list(many)) == list(many.values())


async def test_many_values_expire_together(bench, key: str) -> None:
    await bench.store.put_many({key + "a": b"1", key + "b": b"2"}, TTL_S)
    await bench.advance(PAST_TTL_S)
    assert await bench.store.get_many([key + "a", key + "b"]) == [None, None]


async def test_a_value_expires(bench, key: str) -> None:
    await bench.store.put(key, b"soon gone", TTL_S)
    await bench.store.put(key + "long", b"stays", LONG_S)
    assert await bench.store.get(key) == b"soon gone"
    await bench.advance(PAST_TTL_S)
    assert await bench.store.get(key) is None
    assert await bench.store.get_many([key, key + "long"]) == [None, b"stays"]
    assert await bench.store.take(key) is None


async def test_put_again_sets_the_expiry_anew(bench, key: str) -> None:
    await bench.store.put(key, b"old", TTL_S)
    await bench.store.put(key, b"new", LONG_S)
    await bench.advance(PAST_TTL_S)
    assert await bench.store.get(key) == b"new"
    await bench.store.put(key, b"newer", TTL_S)
    await bench.advance(PAST_TTL_S)
    assert await bench.store.get(key) is None


async def test_reading_does_not_prolong(bench, key: str) -> None:
    await bench.store.put(key, b"value", TTL_S)
    await bench.advance(TTL_S * 0.6)
    await bench.store.get(key)
    await bench.store.get_many([key])
    await bench.advance(TTL_S * 0.6)
    assert await bench.store.get(key) is None


@pytest.mark.parametrize("only_if_absent", [False, True])
@pytest.mark.parametrize("ttl_s", [0.0, -1.0])
async def test_what_has_no_time_left_is_not_kept(bench, key: str, ttl_s: float, only_if_absent: bool) -> None:
    assert await bench.store.put(key, b"late", ttl_s, only_if_absent) is True
    await bench.advance(0.01)
    assert await bench.store.get(key) is None


async def test_a_put_with_no_time_left_still_replaces(bench, key: str) -> None:
    await bench.store.put(key, b"old", LONG_S, only_if_absent=True)
    await bench.store.put(key, b"late", 0.0)
    await bench.advance(0.01)
    assert await bench.store.get(key) is None


async def test_only_if_absent_keeps_the_first(store: Store, key: str) -> None:
    assert await store.put(key, b"first", LONG_S, only_if_absent=True) is True
    assert await store.put(key, b"second", LONG_S, only_if_absent=True) is False
    assert await store.get(key) == b"first"
    assert await store.put(key, b"third", LONG_S) is True
    assert await store.put(key, b"fourth", LONG_S, only_if_absent=True) is False
    assert await store.take(key) == b"third"


async def test_only_if_absent_sees_an_ordinary_value(store: Store, key: str) -> None:
    await store.put(key, b"", LONG_S)
    assert await store.put(key, b"claim", LONG_S, only_if_absent=True) is False
    assert await store.get(key) == b""


async def test_a_refused_claim_does_not_prolong_the_first(bench, key: str) -> None:
    await bench.store.put(key, b"first", TTL_S, only_if_absent=True)
    await bench.store.put(key, b"second", LONG_S, only_if_absent=True)
    await bench.advance(PAST_TTL_S)
    assert await bench.store.put(key, b"third", LONG_S, only_if_absent=True) is True
    assert await bench.store.get(key) == b"third"


async def test_what_was_taken_can_be_claimed_again(store: Store, key: str) -> None:
    await store.put(key, b"first", LONG_S, only_if_absent=True)
    assert await store.take(key) == b"first"
    assert await store.get(key) is None
    assert await store.put(key, b"second", LONG_S, only_if_absent=True) is True


async def test_of_many_who_claim_one_wins(store: Store, key: str) -> None:
    claims = [store.put(key, b"%d" % n, LONG_S, only_if_absent=True) for n in range(100)]
    won = await asyncio.gather(*claims)
    assert won.count(True) == 1
    assert await store.get(key) == b"%d" % won.index(True)


async def test_of_many_who_take_one_receives(store: Store, key: str) -> None:
    await store.put(key, b"ticket", LONG_S)
    taken = await asyncio.gather(*(store.take(key) for _ in range(100)))
    assert sorted(taken, key=bool) == [None] * 99 + [b"ticket"]


async def test_counting_adds_up(store: Store, key: str) -> None:
    assert await store.count(key, 1, LONG_S) == 1
    assert await store.count(key, 2.5, LONG_S) == 3.5
    assert await store.count(key, -3, LONG_S) == 0.5
    assert await store.count(key, 0, LONG_S) == 0.5
    assert await store.count(key, -1, LONG_S) == -0.5
    assert await store.count(key + "other", 1, LONG_S) == 1


async def test_small_amounts_are_not_rounded_away(store: Store, key: str) -> None:
    for _ in range(50):
        total = await store.count(key, 0.000_001, LONG_S)
    assert total == pytest.approx(0.000_05)


async def test_no_count_is_lost(store: Store, key: str) -> None:
    totals = await asyncio.gather(*(store.count(key, 1, LONG_S) for _ in range(100)))
    assert sorted(totals) == list(range(1, 101))


async def test_a_counter_expires_from_when_it_began(bench, key: str) -> None:
    await bench.store.count(key, 5, TTL_S)
    await bench.advance(TTL_S * 0.6)
    assert await bench.store.count(key, 1, LONG_S) == 6
    await bench.advance(TTL_S * 0.6)
    assert await bench.store.count(key, 1, LONG_S) == 1


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), float("-inf")])
async def test_an_amount_that_would_void_every_limit_is_refused(
    store: Store, key: str, amount: float
) -> None:
    await store.count(key, 1, LONG_S)
    with pytest.raises(ValueError, match="cannot count"):
        await store.count(key, amount, LONG_S)
    assert await store.count(key, 1, LONG_S) == 2


async def test_a_counter_with_no_time_left_begins_again(bench, key: str) -> None:
    assert await bench.store.count(key, 3, 0.0) == 3
    await bench.advance(0.01)
    assert await bench.store.count(key, 1, LONG_S) == 1


async def test_keys_are_found_by_what_they_begin_with(store: Store, key: str) -> None:
    names = ["", "a", "ab", "b", "é☃🎈"]
    for name in names:
        await store.put(key + name, b"", LONG_S, only_if_absent=name == "ab")
    assert sorted(await store.keys(key)) == sorted(key + name for name in names)
    assert sorted(await store.keys(key + "a")) == [key + "a", key + "ab"]
    assert await store.keys(key + "c") == []


@pytest.mark.parametrize("glob", ["*", "?", "[ab]", "[^b]", "\\", "\\*"])
async def test_a_prefix_is_not_a_pattern(store: Store, key: str, glob: str) -> None:
    await store.put(key + "a", b"", LONG_S)
    assert await store.keys(key + glob) == []
    await store.put(key + glob + "mine", b"", LONG_S)
    assert await store.keys(key + glob) == [key + glob + "mine"]


async def test_keys_that_are_gone_are_not_found(bench, key: str) -> None:
    await bench.store.put(key + "taken", b"", LONG_S)
    await bench.store.put(key + "short", b"", TTL_S)
    await bench.store.put(key + "stays", b"", LONG_S)
    await bench.store.take(key + "taken")
    await bench.advance(PAST_TTL_S)
    assert await bench.store.keys(key) == [key + "stays"]


async def test_many_keys_are_found_once_each(store: Store, key: str) -> None:
    names = {f"{key}{n}" for n in range(3000)}
    await asyncio.gather(*(store.put(name, b"", LONG_S) for name in names))
    found = await store.keys(key)
    assert len(found) == len(names)
    assert set(found) == names
