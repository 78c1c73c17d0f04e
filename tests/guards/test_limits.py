"""Limits on calls, on requests and on money: what is refused, what is told, and what is settled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from genai_prices import calc_price
from genai_prices.types import Usage as ListedUsage

from proxy.guards.base import Context, Refused, Situation
from proxy.guards.limits import LimitsGuard
from proxy.guards.meter import LimitsMeter
from proxy.guards.prices import Price, Prices
from proxy.guards.windows import Limit
from proxy.model import Principal, Request, ToolCall, Usage
from proxy.ports import Unavailable
from proxy.stores.memory import MemoryStore
from proxy.verdicts import Deny, Refusal, Verdict
from tests.core.harness import World, run
from tests.guards.conversations import ANN, situation

NOW = 1_800_000_036.0  # 24 s before the minute ends
ANNS_TWIN = Principal("ann", tenant="other")
BOB = Principal("bob", tenant="acme")
PRICES = Prices({"m": Price(1.0, 2.0)})


def clock() -> float:
    return NOW


class Down(MemoryStore):
    async def count(self, key: str, amount: float, ttl_s: float) -> float:
        raise Unavailable("the store is down")


# -- calls ------------------------------------------------------------------------------------------


async def check(
    guard: LimitsGuard, name: str, who: Principal = ANN, registry: Sequence[Any] = ()
) -> tuple[Verdict, Context]:
    told = situation(registry=registry, who=who)
    ctx = Context(told, told.registry(name), None)
    return await guard.check(ToolCall.parse("call_1", name, "{}"), ctx), ctx


def calls(amount: int, window: str = "minute") -> list[Limit]:
    return [Limit("calls", amount, window)]


@pytest.mark.parametrize(
    ("options", "registry", "reason", "retryable"),
    [
        ({"principal": calls(1)}, {}, "tools may be called 1 time a minute; try again in 24 s", True),
        ({"principal": calls(1, "hour")}, {}, "tools may be called 1 time an hour; try again in ", False),
        ({"principal": calls(1, "day")}, {}, "tools may be called 1 time a day; try again in ", False),
        (
            {"tenant": calls(1)},
            {},
            "all users of this tenant together may call tools 1 time a minute; try again in 24 s",
            True,
        ),
        ({"tools": {"get_*": calls(1)}}, {}, "get_* may be called 1 time a minute; try again in 24 s", True),
        ({}, {"per_minute": 1}, "get_user may be called 1 time a minute; try again in 24 s", True),
    ],
)
async def test_a_limit_says_when_to_try_again(
    options: dict[str, Any], registry: dict[str, Any], reason: str, retryable: bool
) -> None:
    guard = LimitsGuard(MemoryStore(), **options, clock=clock)
    described = [{"name": "get_user", "limits": registry}] if registry else []
    first, _ = await check(guard, "get_user", registry=described)
    second, ctx = await check(guard, "get_user", registry=described)
    assert first.name == "Allow"
    assert isinstance(second, Deny)
    assert second.type == "limit_exceeded"
    assert second.reasons[0].startswith(reason)
    assert second.retryable is retryable
    assert ctx.facts["limits"]["reason"] == second.reasons[0]


@pytest.mark.parametrize(
    ("options", "others", "free"),
    [
        ({"principal": calls(1)}, [("get_user", BOB), ("get_user", ANNS_TWIN)], True),
        ({"tools": {"get_user": calls(1)}}, [("get_user", BOB), ("get_team", ANN)], True),
        ({"tools": {"get_*": calls(1)}}, [("get_team", ANN)], False),
        ({"tenant": calls(1)}, [("get_user", BOB), ("get_team", ANN)], False),
        ({"tenant": calls(1)}, [("get_user", ANNS_TWIN)], True),
    ],
)
async def test_whose_limit_it_is(
    options: dict[str, Any], others: list[tuple[str, Principal]], free: bool
) -> None:
    guard = LimitsGuard(MemoryStore(), **options, clock=clock)
    await check(guard, "get_user")
    for name, who in others:
        verdict, _ = await check(guard, name, who)
        assert (verdict.name == "Allow") is free


async def test_a_refused_call_counts_towards_no_limit() -> None:
    guard = LimitsGuard(MemoryStore(), principal=calls(3), tools={"get_user": calls(1)}, clock=clock)
    assert [(await check(guard, "get_user"))[0].name for _ in range(5)] == ["Allow"] + ["Deny"] * 4
    assert [(await check(guard, "get_team"))[0].name for _ in range(3)] == ["Allow", "Allow", "Deny"]


async def test_a_guard_without_a_store_does_not_allow() -> None:
    with pytest.raises(Unavailable):
        await check(LimitsGuard(Down(), principal=calls(1)), "get_user")


async def test_a_judged_call_is_judged_again_from_its_record() -> None:
    guard = LimitsGuard(Down(), principal=calls(1))
    told = situation()
    ctx = Context(told, None, None, facts={"limits": {"reason": "too many", "window": "day"}})
    verdict = await guard.check(ToolCall.parse("c", "get_user", "{}"), ctx)
    assert isinstance(verdict, Refusal)
    assert verdict.reasons == ("too many",)


# -- requests ---------------------------------------------------------------------------------------


def asking(
    size: int = 400, who: Principal = ANN, model: str = "m", choices: int = 1, **body: Any
) -> Situation:
    told = situation(who=who)
    told.request = Request("chat", b"x" * size, body, model, False, choices, None)
    return told


def meter(store: MemoryStore | None = None, **options: Any) -> LimitsMeter:
    return LimitsMeter(store or MemoryStore(), PRICES.cost_usd, **{"clock": clock, **options})


def tokens(amount: int, window: str = "minute") -> list[Limit]:
    return [Limit("tokens", amount, window)]


@pytest.mark.parametrize(
    ("request_", "reserved"),
    [
        ({}, 100 + 4096),
        ({"max_tokens": 50}, 150),
        ({"max_completion_tokens": 50, "max_tokens": 60}, 160),
        ({"max_tokens": 50, "choices": 3}, 250),
        ({"max_output_tokens": 50}, 100 + 4096),
        ({"max_output_tokens": 50, "max_tokens": 60}, 160),
        ({"max_tokens": True}, 100 + 4096),
        ({"max_tokens": -5}, 100 + 4096),
        ({"max_tokens": "9"}, 100 + 4096),
    ],
)
async def test_what_a_request_may_use_is_reserved(request_: dict[str, Any], reserved: int) -> None:
    assert await meter(principal=tokens(reserved)).open(asking(**request_))
    with pytest.raises(Refused) as refused:
        await meter(principal=tokens(reserved - 1)).open(asking(**request_))
    assert refused.value.status == 429
    assert refused.value.retry_after_s is None, "waiting does not make the request smaller"


@pytest.mark.parametrize(
    ("options", "status", "code", "said", "retry_after_s"),
    [
        (
            {"principal": [Limit("requests", 1, "minute")]},
            429,
            "rate_limit_exceeded",
            "You may send 1 request a minute; try again in 24 s.",
            24,
        ),
        (
            {"principal": tokens(200)},
            429,
            "rate_limit_exceeded",
            "You may use 200 tokens a minute; try again in 24 s.",
            24,
        ),
        (
            {"tenant": [Limit("micro_usd", 320, "minute")]},
            429,
            "insufficient_quota",
            "All users of your tenant together may spend 0.00032 US dollars a minute; try again in 24 s.",
            24,
        ),
        (
            {"models": {"*": [Limit("requests", 1, "hour")]}},
            429,
            "rate_limit_exceeded",
            "All users together may send 1 request of the models * an hour; try again in ",
            None,
        ),
    ],
)
async def test_a_reached_limit_is_told(
    options: dict[str, Any], status: int, code: str, said: str, retry_after_s: int | None
) -> None:
    limits = meter(**options)
    await limits.open(asking(max_tokens=10))
    with pytest.raises(Refused) as refused:
        await limits.open(asking(max_tokens=100))
    assert (refused.value.status, refused.value.code) == (status, code)
    assert refused.value.message.startswith(said)
    if retry_after_s is not None:
        assert refused.value.retry_after_s == retry_after_s


async def test_others_are_not_held_to_what_one_has_used() -> None:
    limits = meter(principal=[Limit("requests", 1, "day")], models={"big-*": [Limit("requests", 1, "day")]})
    for who in (ANN, BOB, ANNS_TWIN):
        await limits.open(asking(who=who))
    await limits.open(asking(who=Principal("cy"), model="big-1"))
    with pytest.raises(Refused):
        await limits.open(asking(who=Principal("di"), model="big-2"))


@pytest.mark.parametrize(
    ("used", "broken_off", "left"),
    [
        (Usage(100, 20), False, 880),
        (Usage(), False, 1000),  # the provider was never asked, or refused
        (Usage(), True, 800),  # what is not known stays reserved
        (Usage(300, 100), True, 400),
        (Usage(10**18, 0), False, 0),
        (Usage(-50, 20), False, 980),
    ],
)
async def test_what_was_used_takes_the_reservation_s_place(used: Usage, broken_off: bool, left: int) -> None:
    limits = meter(principal=tokens(1000))
    told = asking(400, max_tokens=100)
    await limits.close(await limits.open(told), used, told, broken_off)
    with pytest.raises(Refused):
        await limits.open(asking(4, max_tokens=left))
    if left > 1:
        await limits.open(asking(4, max_tokens=left - 1))


async def test_200_at_once_do_not_overspend() -> None:
    store, served = MemoryStore(), 0
    replicas = [meter(store, principal=[Limit("micro_usd", 30_000, "day")]) for _ in range(2)]

    async def one(number: int) -> None:
        nonlocal served
        limits, told = replicas[number % 2], asking(400, max_tokens=100)
        try:
            reservation = await limits.open(told)
        except Refused:
            return
        served += 1
        await asyncio.sleep(0)
        await limits.close(reservation, Usage(100, 100), told)

    await asyncio.gather(*(one(number) for number in range(200)))
    # Each costs 100 × $1/M + 100 × $2/M = 300 millionths.
    assert served == 100


async def test_what_overshoots_its_reservation_is_bounded_by_what_is_in_flight() -> None:
    limits = meter(principal=tokens(1000), output_tokens=100)
    told, open_, spent = asking(400), [], 0
    for _ in range(20):
        try:
            open_.append(await limits.open(told))
        except Refused:
            break
    assert len(open_) == 5
    for reservation in open_:
        await limits.close(reservation, Usage(100, 400), told)
        spent += 500
    assert spent - 1000 == len(open_) * (500 - 200)
    with pytest.raises(Refused):
        await limits.open(asking(4, max_tokens=1))


async def test_a_model_without_a_price() -> None:
    budget = {"principal": [Limit("micro_usd", 100, "day")]}
    with pytest.raises(Refused, match=r"guards\.limits\.prices") as refused:
        await meter(**budget).open(asking(model="nobody-knows"))
    assert (refused.value.status, refused.value.param) == (403, "model")
    allowing, told = meter(**budget, unknown_price=True), asking(model="nobody-knows")
    await allowing.close(await allowing.open(told), Usage(10**9, 0), told)
    await allowing.open(told)


async def test_a_store_that_is_down() -> None:
    with pytest.raises(Refused) as refused:
        await meter(Down(), principal=tokens(10**6)).open(asking())
    assert refused.value.status == 503
    limits, told = meter(Down(), principal=tokens(10**6), fail_open=True), asking()
    await limits.close(await limits.open(told), Usage(1, 1), told)


# -- whole exchanges --------------------------------------------------------------------------------

CALL = {"calls": [{"name": "get_user", "arguments": {"id": 1}, "id": "call_a"}]}
SERVED: dict[str, Any] = {
    "request": {"max_tokens": 100},
    "upstream": [{"text": "x" * 400}],
    "limits": {"requests_per_day": 10**6, "tokens_per_minute": 5000},
}


async def used_by(world: World, probe: int = 5000) -> int:
    """How much of the tokens a minute is gone: found by asking for what may be left."""
    low, high = 0, probe
    guard = LimitsMeter(world.store, PRICES.cost_usd, principal=tokens(5000), clock=lambda: world.now)
    who = Principal("ann")
    while low < high:
        middle = (low + high + 1) // 2
        told = asking(0, who, max_tokens=max(middle, 1))
        try:
            await guard.close(await guard.open(told), Usage(), told)
        except Refused:
            high = middle - 1
        else:
            low = middle
    return 5000 - low


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize(
    ("upstream", "low", "high"),
    [
        ([{"text": "Hi.", "usage": None}], 10, 60),
        ([{"text": "x" * 4000, "usage": None}], 1010, 1060),
        ([{"fault": {"status": 401}}], 0, 0),
        ([{"text": "x" * 40, "fault": "cut"}], 110, 200),
    ],
    ids=["short", "long", "refused", "cut"],
)
async def test_an_answer_without_usage(
    upstream: list[dict[str, Any]], low: int, high: int, stream: bool
) -> None:
    world = World()
    await run(SERVED | {"upstream": upstream}, stream, world=world)
    assert low <= await used_by(world) <= high


async def test_rounds_inside_the_proxy_count() -> None:
    world = World()
    case = SERVED | {
        "request": {"tools": ["get_user"]},
        "policy": {"get_user": {"effect": "deny"}},
        "upstream": [
            CALL | {"usage": {"input": 300, "output": 40}},
            {"text": "No.", "usage": {"input": 400, "output": 3}},
        ],
    }
    await run(case, False, world=world)
    assert await used_by(world) == 743


async def test_a_limit_is_told_as_the_api_tells_it_and_lapses() -> None:
    world = World()
    case = SERVED | {"limits": {"requests_per_minute": 1}}
    assert (await run(case, False, world=world)).exchange.status == 200
    refused = await run(case, True, world=world)
    assert refused.exchange.status == 429
    assert not refused.upstream.asks
    world.now += 24
    assert (await run(case, False, world=world)).exchange.status == 200


async def test_the_model_reads_why_a_call_did_not_run() -> None:
    world = World()
    case = {
        "limits": {"tools": {"get_user": {"per_minute": 1}}},
        "request": {"tools": ["get_user"]},
        "upstream": [CALL, {"text": "Later."}],
    }
    assert (await run(case, False, world=world)).decisions[0].verdict == "Allow"
    told = "get_user may be called 1 time a minute; try again in 24 s"
    case["upstream"] = [CALL, {"text": "Later.", "expect": {"tool_results": {"call_a": told}}}]
    outcome = await run(case, False, world=world)
    assert [decision.guard for decision in outcome.decisions] == ["limits"]
    assert outcome.exchange.outcome == "answered"


# -- prices -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gpt-4o-mini", "GPT-4o", "claude-sonnet-4-5-20250929", "gemini-2.5-pro"])
@pytest.mark.parametrize("used", [Usage(1000, 100), Usage(200_000, 1), Usage(200_001, 500), Usage(10**6, 0)])
def test_list_prices_are_those_of_the_package(model: str, used: Usage) -> None:
    counted = ListedUsage(input_tokens=used.input_tokens, output_tokens=used.output_tokens)
    listed = calc_price(counted, model).total_price
    assert Prices().cost_usd(model, used) == pytest.approx(float(listed))


@pytest.mark.parametrize("model", ["", "nobody-knows", "gpt-4o\n; drop", "x" * 10_000, "\ud800"])
def test_what_has_no_price(model: str) -> None:
    assert Prices(now=lambda: datetime(2026, 1, 1, tzinfo=UTC)).cost_usd(model, Usage(1, 1)) is None


def test_the_operator_s_price_comes_first() -> None:
    prices = Prices({"gpt-4o*": Price(7.0, 9.0), "*": Price(1.0, 1.0)})
    assert prices.cost_usd("gpt-4o-mini", Usage(10**6, 10**6)) == 16.0
    assert prices.cost_usd("mine", Usage(10**6, 10**6)) == 2.0
