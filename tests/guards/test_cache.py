"""The cache: what the application returned answers again, for those who may share it, until it is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.guards.base import Context, canonical
from proxy.guards.cache import CacheGuard
from proxy.guards.policy import read_decision
from proxy.model import OfferedTool, PastCall, Principal, ToolCall
from proxy.ports import Unavailable
from proxy.stores.memory import MemoryStore
from proxy.tools import Registry, ToolSpec
from proxy.verdicts import Answer
from tests.guards.conversations import ANN, situation

BOB = Principal("bob", tenant="acme")
EVE = Principal("ann", tenant="other")
TOOLS: list[dict[str, Any]] = [
    {"name": "get_user", "effect": "read", "cache": {"ttl_s": 60, "tags": ["user:{user_id}"]}},
    {"name": "list_users", "effect": "read", "cache": {"ttl_s": 60, "tags": ["users"]}},
    {"name": "get_rate", "effect": "read", "cache": {"ttl_s": 60, "scope": "global", "tags": ["rates"]}},
    {"name": "get_plan", "effect": "read", "cache": {"ttl_s": 60, "scope": "tenant"}},
    {"name": "read_file", "effect": "read"},
    {"name": "purge", "effect": "write", "cache": {"ttl_s": 60}},
    {"name": "update_user", "effect": "write", "invalidates": ["user:{user_id}", "users", "rates"]},
    {"name": "update_all", "effect": "destructive", "invalidates": ["user:*"]},
    {
        "name": "search",
        "effect": "read",
        "parameters": {
            "type": "object",
            "properties": {
                "q": {"type": "string"},
                "limit": {"type": "integer", "default": 10},
                "filter": {"type": "object", "properties": {"open": {"type": "boolean", "default": True}}},
            },
        },
        "cache": {"ttl_s": 60},
    },
]


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Desk:
    """Applications that send calls and bring results, before one cache."""

    clock: Clock = field(default_factory=Clock)
    tools: Sequence[dict[str, Any]] = field(default_factory=lambda: TOOLS)
    calls: int = 0

    def __post_init__(self) -> None:
        self.store = MemoryStore(max_entries=1000, clock=self.clock)
        self.guard = CacheGuard(self.store, clock=self.clock)
        self.registry = Registry({spec["name"]: ToolSpec.model_validate(spec) for spec in self.tools})

    async def call(
        self,
        name: str,
        arguments: Any,
        who: Principal = ANN,
        conversation: str = "c",
        ttl_s: float | None = None,
        choices: int = 1,
        offered: OfferedTool | None = None,
    ) -> tuple[str | None, PastCall]:
        """Judge a call: its answer from the cache, or None, and the call as history would show it."""
        self.calls += 1
        call = ToolCall.parse(f"call_{self.calls}", name, json.dumps(arguments))
        told = situation(
            registry=self.registry,
            who=who,
            conversation=conversation,
            choices=choices,
            tools={name: offered} if offered else None,
        )
        told.begin_turn((call,))
        context = Context(told, self.registry.get(name), offered, cache_ttl_s=ttl_s)
        verdict = await self.guard.check(call, context)
        answer = verdict.result if isinstance(verdict, Answer) else None
        return answer, PastCall(call.id, name, call.arguments_json, None, 1)

    async def bring(
        self, past: PastCall, result: str, who: Principal = ANN, conversation: str = "c", **marks: bool
    ) -> None:
        back = replace(past, result=result, **marks)
        told = situation([back], self.registry, who=who, conversation=conversation)
        await self.guard.learn([back], told)

    async def run(self, name: str, arguments: Any, result: str, who: Principal = ANN) -> None:
        """A call that is forwarded, and its result."""
        answer, past = await self.call(name, arguments, who)
        assert answer is None
        await self.bring(past, result, who)

    async def answer(self, name: str, arguments: Any, who: Principal = ANN, **told: Any) -> str | None:
        return (await self.call(name, arguments, who, **told))[0]


async def test_what_came_back_answers_again() -> None:
    desk = Desk()
    await desk.run("get_user", {"user_id": 42}, "Ann, 30")
    assert await desk.answer("get_user", {"user_id": 42}) == "Ann, 30"
    assert await desk.answer("get_user", {"user_id": 42}, conversation="another") == "Ann, 30"
    assert await desk.answer("get_user", {"user_id": 43}) is None


async def test_an_answer_is_never_older_than_its_time_from_when_it_was_asked_for() -> None:
    desk = Desk()
    _, past = await desk.call("get_user", {"user_id": 42})
    desk.clock.now += 40
    await desk.bring(past, "Ann, 30")
    assert await desk.answer("get_user", {"user_id": 42}) == "Ann, 30"
    desk.clock.now += 20
    assert await desk.answer("get_user", {"user_id": 42}) is None


async def test_a_result_that_comes_too_late_is_not_kept() -> None:
    desk = Desk()
    _, past = await desk.call("get_user", {"user_id": 42})
    desk.clock.now += 61
    await desk.bring(past, "Ann, 30")
    assert await desk.answer("get_user", {"user_id": 42}) is None


async def test_policy_may_shorten_the_time_and_turn_the_cache_off() -> None:
    desk = Desk()
    await desk.run("get_user", {"user_id": 42}, "Ann, 30")
    desk.clock.now += 20
    assert await desk.answer("get_user", {"user_id": 42}, ttl_s=21) == "Ann, 30"
    assert await desk.answer("get_user", {"user_id": 42}, ttl_s=0) is None
    assert await desk.answer("get_user", {"user_id": 42}, ttl_s=10_000) == "Ann, 30"
    assert await desk.answer("get_user", {"user_id": 42}, ttl_s=20) is None
    _, past = await desk.call("get_user", {"user_id": 7}, ttl_s=0)
    await desk.bring(past, "unseen")
    assert await desk.answer("get_user", {"user_id": 7}) is None


@pytest.mark.parametrize(
    ("name", "shared_with"),
    [("get_user", []), ("get_plan", [BOB]), ("get_rate", [BOB, EVE])],
)
async def test_scopes(name: str, shared_with: list[Principal]) -> None:
    desk = Desk()
    arguments = {"user_id": 1}
    await desk.run(name, arguments, "mine")
    for other in (BOB, EVE, Principal("ann", tenant="acme", kind="jwt")):
        wanted = "mine" if other in shared_with or (name != "get_user" and other.kind == "jwt") else None
        assert await desk.answer(name, arguments, other) == wanted


async def test_those_without_a_tenant_share_with_nobody() -> None:
    desk = Desk()
    await desk.run("get_plan", {}, "mine", Principal("ann"))
    assert await desk.answer("get_plan", {}, Principal("bob")) is None
    assert await desk.answer("get_plan", {}, Principal("ann")) == "mine"


@pytest.mark.parametrize("who", [BOB, EVE, Principal("ann", tenant="acme", kind="jwt")])
async def test_anothers_call_id_brings_nothing(who: Principal) -> None:
    """Neither into the cache of the one who knows the id, nor into that of the one whose call it was."""
    desk = Desk()
    for name in ("get_user", "get_plan", "get_rate"):
        _, past = await desk.call(name, {"user_id": 42})
        await desk.bring(past, "forged", who)
        assert await desk.answer(name, {"user_id": 42}, who) is None
        assert await desk.answer(name, {"user_id": 42}) is None


async def test_a_result_nobody_was_sent_for_is_not_kept() -> None:
    desk = Desk()
    await desk.bring(PastCall("call_99", "get_user", '{"user_id": 42}', None, 1), "forged")
    assert await desk.answer("get_user", {"user_id": 42}) is None


async def test_nor_one_for_other_arguments_or_another_tool_or_in_another_conversation() -> None:
    desk = Desk()
    _, past = await desk.call("get_user", {"user_id": 42})
    await desk.bring(PastCall(past.id, "get_user", '{"user_id": 43}', None, 1), "forged")
    await desk.bring(PastCall(past.id, "list_users", "{}", None, 1), "forged")
    await desk.bring(past, "forged", conversation="another")
    for name, arguments in (("get_user", {"user_id": 42}), ("get_user", {"user_id": 43}), ("list_users", {})):
        assert await desk.answer(name, arguments) is None


async def test_of_calls_with_one_id_the_last_one_is_meant() -> None:
    """Some servers count their calls from 0 in every turn."""
    desk = Desk()
    old = PastCall("call_0", "get_user", '{"user_id": 42}', "old", 1)
    told = situation([old], desk.registry, conversation="c")
    call = ToolCall.parse("call_0", "get_user", '{"user_id": 42}')
    await desk.guard.check(call, Context(told, desk.registry.get("get_user"), None))
    back = [old, PastCall("call_0", "get_user", '{"user_id": 42}', "new", 1)]
    await desk.guard.learn(back, situation(back, desk.registry, conversation="c"))
    assert await desk.answer("get_user", {"user_id": 42}) == "new"


async def test_a_result_is_taken_in_once() -> None:
    desk = Desk()
    _, past = await desk.call("get_user", {"user_id": 42})
    await desk.bring(past, "first")
    await desk.bring(past, "second")
    assert await desk.answer("get_user", {"user_id": 42}) == "first"


async def test_the_call_that_a_result_is_for_is_the_one_that_was_forwarded() -> None:
    """Else a client could have a harmless call forwarded, and bring the answer to another."""
    desk = Desk()
    _, past = await desk.call("get_plan", {"plan": "free"})
    await desk.bring(PastCall(past.id, "get_plan", '{"plan": "paid"}', None, 1), "forged")
    for plan in ("free", "paid"):
        assert await desk.answer("get_plan", {"plan": plan}, BOB) is None


@pytest.mark.parametrize("result", ["Error: down", '{"error": "down"}', "Traceback (most", "x" * 300_000, ""])
async def test_failures_and_what_is_too_large_are_not_kept(result: str) -> None:
    desk = Desk()
    await desk.run("get_user", {"user_id": 42}, result)
    assert await desk.answer("get_user", {"user_id": 42}) is None


@pytest.mark.parametrize("mark", ["failed", "partial"])
async def test_nor_what_is_marked_as_a_failure_or_is_more_than_text(mark: str) -> None:
    desk = Desk()
    _, past = await desk.call("get_user", {"user_id": 42})
    await desk.bring(past, "no such user, see the picture", **{mark: True})
    assert await desk.answer("get_user", {"user_id": 42}) is None


@pytest.mark.parametrize("result", ["[]", "null", "ok", '{"error": null}', "é☂\n\n[1]", "line\nline"])
async def test_everything_else_is_kept_as_it_came(result: str) -> None:
    desk = Desk()
    await desk.run("get_user", {"user_id": 42}, result)
    assert await desk.answer("get_user", {"user_id": 42}) == result


@pytest.mark.parametrize("name", ["read_file", "purge", "update_user", "unknown"])
async def test_only_reads_that_may_be_cached_take_part(name: str) -> None:
    desk = Desk()
    await desk.run(name, {"user_id": 1}, "result")
    assert await desk.answer(name, {"user_id": 1}) is None


async def test_defaults_are_part_of_the_arguments() -> None:
    desk = Desk()
    await desk.run("search", {"q": "x", "filter": {}}, "found")
    assert await desk.answer("search", {"limit": 10, "filter": {"open": True}, "q": "x"}) == "found"
    assert await desk.answer("search", {"q": "x", "limit": 11, "filter": {}}) is None
    assert await desk.answer("search", {"q": "x", "filter": {"open": False}}) is None
    assert await desk.answer("search", {"q": "x"}) is None


async def test_defaults_of_the_applications_schema_where_the_operator_has_none() -> None:
    desk = Desk()

    def offering(default: int) -> OfferedTool:
        return OfferedTool("list_users", {"properties": {"limit": {"default": default}}})

    _, past = await desk.call("list_users", {}, offered=offering(10))
    back = PastCall(past.id, "list_users", "{}", "ten users", 1)
    told = situation([back], desk.registry, conversation="c", tools={"list_users": offering(10)})
    await desk.guard.learn([back], told)
    assert await desk.answer("list_users", {"limit": 10}, offered=offering(10)) == "ten users"
    assert await desk.answer("list_users", {"limit": 10}, offered=offering(20)) is None
    assert await desk.answer("list_users", {"limit": 10}) is None


async def test_another_description_of_the_tool_is_another_tool() -> None:
    desk = Desk()
    await desk.run("get_plan", {}, "old")
    changed = [{**spec, "description": "new"} for spec in TOOLS]
    desk.registry = Registry({spec["name"]: ToolSpec.model_validate(spec) for spec in changed})
    assert await desk.answer("get_plan", {}) is None


async def test_a_write_ends_what_it_changes_and_nothing_else() -> None:
    desk = Desk()
    for user in (42, 43):
        await desk.run("get_user", {"user_id": user}, f"user {user}")
    await desk.run("list_users", {}, "all")
    await desk.run("get_plan", {}, "plan")
    await desk.call("update_user", {"user_id": 42})
    assert await desk.answer("get_user", {"user_id": 42}) is None
    assert await desk.answer("list_users", {}) is None
    assert await desk.answer("get_user", {"user_id": 43}) == "user 43"
    assert await desk.answer("get_plan", {}) == "plan"


@pytest.mark.parametrize("spelled", [42, "42", 42.0])
async def test_a_tag_has_one_spelling(spelled: Any) -> None:
    desk = Desk()
    await desk.run("get_user", {"user_id": 42}, "old")
    await desk.call("update_user", {"user_id": spelled})
    assert await desk.answer("get_user", {"user_id": 42}) is None


@pytest.mark.parametrize(("name", "arguments"), [("update_user", {}), ("update_all", {"force": True})])
async def test_a_write_that_does_not_say_what_it_changes_ends_all_that_it_could(
    name: str, arguments: Any
) -> None:
    desk = Desk()
    await desk.run("get_user", {"user_id": 42}, "old")
    await desk.run("get_user", {"user_id": 43}, "old")
    await desk.call(name, arguments)
    assert await desk.answer("get_user", {"user_id": 42}) is None
    assert await desk.answer("get_user", {"user_id": 43}) is None


async def test_a_read_that_does_not_say_what_it_reads_is_not_kept() -> None:
    desk = Desk()
    await desk.run("get_user", {"name": "ann"}, "Ann")
    assert await desk.answer("get_user", {"name": "ann"}) is None


async def test_anothers_write_ends_what_the_tenant_shares_and_what_all_share() -> None:
    desk = Desk()
    await desk.run("get_user", {"user_id": 42}, "old")
    await desk.run("get_rate", {}, "old")
    await desk.call("update_user", {"user_id": 42}, EVE)
    assert await desk.answer("get_user", {"user_id": 42}) == "old"  # another tenant's user 42
    assert await desk.answer("get_rate", {}) is None
    await desk.call("update_user", {"user_id": 42}, BOB)
    assert await desk.answer("get_user", {"user_id": 42}) is None


async def test_what_was_read_before_a_write_is_not_learned_after_it() -> None:
    desk = Desk()
    _, read = await desk.call("get_user", {"user_id": 42})
    await desk.call("update_user", {"user_id": 42})
    await desk.bring(read, "old")
    assert await desk.answer("get_user", {"user_id": 42}) is None


async def test_what_was_read_while_a_write_ran_ends_with_it() -> None:
    desk = Desk()
    _, write = await desk.call("update_user", {"user_id": 42})
    await desk.run("get_user", {"user_id": 42}, "old")
    assert await desk.answer("get_user", {"user_id": 42}) == "old"
    await desk.bring(write, "ok")
    assert await desk.answer("get_user", {"user_id": 42}) is None


async def test_read_and_write_whose_results_come_together() -> None:
    desk = Desk()
    _, write = await desk.call("update_user", {"user_id": 42})
    _, read = await desk.call("get_user", {"user_id": 42})
    back = [PastCall(p.id, p.name, p.arguments_json, "old", 1) for p in (read, write)]
    await desk.guard.learn(back, situation(back, desk.registry, conversation="c"))
    assert await desk.answer("get_user", {"user_id": 42}) is None


async def test_only_writes_that_were_forwarded_end_anything() -> None:
    desk = Desk()
    await desk.run("get_user", {"user_id": 42}, "Ann")
    await desk.bring(PastCall("call_99", "update_user", '{"user_id": 42}', None, 1), "ok", BOB)
    await desk.bring(PastCall("call_99", "update_user", '{"user_id": 42}', None, 1), "ok")
    assert await desk.answer("get_user", {"user_id": 42}) == "Ann"


async def test_a_store_that_loses_anything_only_misses() -> None:
    desk = Desk()
    await desk.run("get_user", {"user_id": 42}, "Ann")
    for key in await desk.store.keys("cache:tag:"):
        await desk.store.take(key)
    assert await desk.answer("get_user", {"user_id": 42}) is None
    await desk.run("get_user", {"user_id": 42}, "Ann, 31")
    assert await desk.answer("get_user", {"user_id": 42}) == "Ann, 31"


async def test_what_a_write_could_not_end_is_not_answered_once_the_store_is_back() -> None:
    desk = Desk()
    _, read = await desk.call("get_user", {"user_id": 1})
    await desk.bring(read, "Ada")
    assert (await desk.call("get_user", {"user_id": 1}))[0] == "Ada"
    whole, desk.guard._store = desk.guard._store, Down()
    with pytest.raises(Unavailable):
        await desk.call("update_user", {"user_id": 1})
    desk.guard._store = whole
    desk.clock.now += 1
    answer, read = await desk.call("get_user", {"user_id": 1})
    assert answer is None
    await desk.bring(read, "Ada Lovelace")
    assert (await desk.call("get_user", {"user_id": 1}))[0] == "Ada Lovelace"


async def test_several_choices_and_the_last_round_are_not_answered() -> None:
    desk = Desk()
    await desk.run("get_user", {"user_id": 42}, "Ann")
    assert await desk.answer("get_user", {"user_id": 42}, choices=2) is None
    desk.guard = CacheGuard(desk.store, max_rounds=0, clock=desk.clock)
    assert await desk.answer("get_user", {"user_id": 42}) is None


class Down(MemoryStore):
    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        raise Unavailable("the store is down")

    async def take(self, key: str) -> bytes | None:
        raise Unavailable("the store is down")


@pytest.mark.parametrize(
    "use",
    [
        lambda desk: desk.call("get_user", {"user_id": 42}),
        lambda desk: desk.call("update_user", {"user_id": 42}),
        lambda desk: desk.bring(PastCall("call_1", "get_user", '{"user_id": 42}', None, 1), "x"),
    ],
)
async def test_a_store_that_fails_is_said_to_be_unavailable(use: Callable[[Desk], Any]) -> None:
    desk = Desk()
    desk.guard = CacheGuard(Down())
    with pytest.raises(Unavailable):
        await use(desk)


async def test_tools_that_take_no_part_do_not_touch_the_store() -> None:
    desk = Desk()
    desk.guard = CacheGuard(Down())
    answer, past = await desk.call("read_file", {"path": "x"})
    await desk.bring(past, "text")
    assert answer is None


async def test_what_was_found_is_a_fact_without_the_result() -> None:
    desk = Desk()
    await desk.run("get_user", {"user_id": 42}, "Ann")
    desk.clock.now += 5
    call = ToolCall.parse("call_x", "get_user", '{"user_id": 42}')
    context = Context(situation(registry=desk.registry), desk.registry.get("get_user"), None)
    verdict = await desk.guard.check(call, context)
    assert context.facts == {"cache": {"hit": True, "age_s": 5.0}}
    assert verdict.reasons == ("answered from the cache, 5 s old",)
    replayed = Context(situation(registry=desk.registry), context.spec, None, facts=dict(context.facts))
    assert (await CacheGuard(Down()).check(call, replayed)).name == "Answer"


@pytest.mark.parametrize(
    ("said", "ttl_s"), [({}, None), ({"cache_ttl_s": 0}, 0.0), ({"cache_ttl_s": 1.5}, 1.5)]
)
def test_what_policy_says_of_the_cache(said: dict[str, Any], ttl_s: float | None) -> None:
    call = ToolCall.parse("c", "get_user", "{}")
    for more in ({}, {"arguments": {"user_id": 1}}):
        decision = {"effect": "allow", "obligations": {**said, **more}}
        assert read_decision(call, decision).cache_ttl_s == ttl_s


@pytest.mark.parametrize("ttl_s", [-1, True, "60", [], float("nan")])
def test_what_policy_cannot_mean(ttl_s: Any) -> None:
    decision = {"effect": "allow", "obligations": {"cache_ttl_s": ttl_s}}
    with pytest.raises(Unavailable):
        read_decision(ToolCall.parse("c", "get_user", "{}"), decision)


scalars = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["", "1", "a", "*"]))
arguments = st.dictionaries(st.sampled_from(["q", "limit", "filter", "user_id"]), scalars, max_size=3)
people = st.builds(Principal, st.sampled_from(["a", "b"]), tenant=st.sampled_from(["", "t", "u"]))
asked = st.tuples(st.sampled_from(["get_user", "get_rate", "get_plan", "search"]), arguments, people)


@settings(max_examples=150, deadline=None)
@given(first=asked, second=asked)
async def test_only_the_same_question_by_one_who_may_share_is_answered(
    first: tuple[str, Any, Principal], second: tuple[str, Any, Principal]
) -> None:
    desk = Desk()
    await desk.run(first[0], first[1], "the result", first[2])
    answer = await desk.answer(*second)
    if answer is None:
        return
    assert second[0] == first[0]
    scope = next(spec["cache"].get("scope", "principal") for spec in TOOLS if spec["name"] == first[0])
    if scope == "principal" or (scope == "tenant" and not first[2].tenant):
        assert second[2] == first[2]
    if scope == "tenant":
        assert second[2].tenant == first[2].tenant
    full = [{"limit": 10} | given_ if first[0] == "search" else given_ for given_ in (first[1], second[1])]
    assert canonical(full[0]) == canonical(full[1])


steps = st.lists(
    st.tuples(st.sampled_from(["read", "bring", "write", "done", "tick"]), st.integers(0, 3)), max_size=40
)


@settings(max_examples=200, deadline=None)
@given(steps=steps)
async def test_an_answer_is_never_from_before_a_write(steps: list[tuple[str, int]]) -> None:
    """One row; reads see it as it stands when they run, which is any time between call and result."""
    desk = Desk()
    version, written = 0, 0  # the row, and how many writes have come back
    reads: list[tuple[PastCall, int]] = []
    writes: list[PastCall] = []
    for step, pick in steps:
        match step:
            case "read":
                answer, past = await desk.call("get_user", {"user_id": 42})
                if answer is None:
                    reads.append((past, version))  # runs at once: the oldest that it could see
                else:
                    assert int(answer) >= written
            case "bring" if reads:
                past, seen = reads.pop(pick % len(reads))
                await desk.bring(past, str(seen))
            case "write":
                _, past = await desk.call("update_user", {"user_id": 42})
                writes.append(past)
            case "done" if writes:
                version += 1
                written = version
                await desk.bring(writes.pop(pick % len(writes)), "ok")
            case "tick":
                desk.clock.now += 10 * pick
