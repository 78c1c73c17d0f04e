"""Recorded decisions judged again: what the log holds is enough, and what changes is told truly."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.guards.base import Situation
from proxy.guards.policy import PolicyGuard
from proxy.guards.schema import SchemaGuard
from proxy.model import Principal, ToolCall
from proxy.pipeline import Pipeline, Watched
from proxy.record import DecisionRecord, Record, Step
from proxy.replay import Asked, Rebuilder, Replay, Side, Tally
from proxy.sinks.chain import Chain, Link
from proxy.sinks.reading import record_of
from proxy.tools import ToolSpec
from proxy.wire.chat import ChatCodec
from tests.core.harness import FakeEngine, ListSink, run, starter
from tests.core.test_cases import CASES


def read_back(records: Iterable[Record]) -> list[DecisionRecord]:
    """The decisions as they stand in a log."""
    chain = Chain(Link())
    read = [record_of(orjson.loads(chain.append(record.fields()))) for record in records]
    return [record for record in read if isinstance(record, DecisionRecord)]


def rebuilt(records: Iterable[DecisionRecord]) -> list[Asked]:
    rebuilder = Rebuilder()
    asked = [asked for record in records for asked in rebuilder.feed(record)]
    asked += rebuilder.finish()
    return sorted(
        asked, key=lambda one: [record.decision_id for record in records].index(one.record.decision_id)
    )


def without(document: Any, missing: Sequence[str]) -> Any:
    """The document without what the log does not tell."""
    document = copy.deepcopy(document)
    for pointer in missing:
        place, parts = document, [int(part) if part.isdigit() else part for part in pointer.split("/")[1:]]
        for part in parts[:-1]:
            place = place[part]
        place[parts[-1]] = "missing"
    return document


@pytest.mark.parametrize(("case", "protocol"), CASES)
async def test_a_record_tells_what_policy_was_told(case: dict[str, Any], protocol: str) -> None:
    outcome = await run(case, stream=False, protocol=protocol)
    if case.get("engine") == "starter":
        return
    found = rebuilt(read_back(outcome.records))
    assert len(found) == len(outcome.engine.inputs)
    for asked, told in zip(found, outcome.engine.inputs, strict=True):
        assert without(asked.document, asked.missing) == without(told, asked.missing)
        # A case's records are of one request: what it says of earlier ones is in no record.
        assert all(pointer.startswith("/history/calls/") for pointer in asked.missing)


def decided(id: str, **changes: Any) -> DecisionRecord:
    """A decision on one call of ``drop`` that policy allowed."""
    record = DecisionRecord(
        decision_id=id,
        time="2026-01-01T00:00:00Z",
        trace_id=id.rpartition("-")[0],
        conversation_id="c",
        principal={"id": "ann", "roles": ["staff"], "tenant": "acme", "kind": "header"},
        protocol="chat",
        model="m",
        tool="drop",
        call_id="call_1",
        arguments_written={"table": "t"},
        arguments_forwarded={"table": "t"},
        verdict="Allow",
        effect="forward",
        guard=None,
        reasons=(),
        trail=(Step("policy", "Allow", 5),),
        policy_revision="r",
        config_digest="d",
        facts={"policy": {"turn": 1, "query": "please"}},
    )
    return replace(record, **changes)


def denied(*reasons: str) -> dict[str, Any]:
    return {"effect": "deny", "reasons": list(reasons)}


class Says(FakeEngine):
    """Decides by a function of the input."""

    def __init__(self, decide: Callable[[Mapping[str, Any]], Any], revision: str = "other") -> None:
        super().__init__({}, {}, revision)
        self._decide = decide

    async def decide(self, package: str, input: Mapping[str, Any]) -> Any:
        self.inputs.append(input)
        return self._decide(input)


async def replayed(records: Iterable[DecisionRecord], before: Side, after: Side) -> Tally:
    replay = Replay(before, after)
    for record in records:
        await replay.take(record)
    return await replay.finish()


def always(effect: str, revision: str = "other") -> Side:
    return Side(Says(lambda input: {"effect": effect}, revision))


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ("allow", "allow", "same"),
        ("allow", "confirm", "stricter"),
        ("confirm", "reask", "stricter"),
        ("reask", "deny", "stricter"),
        ("deny", "allow", "looser"),
        ("allow", "nonsense", "stricter"),
    ],
)
async def test_what_changes_is_counted(before: str, after: str, change: str) -> None:
    tally = await replayed([decided("t-1"), decided("u-1")], always(before), always(after))
    assert dict(tally.changes) == {change: 2}
    assert {name: dict(count) for name, count in tally.tools.items()} == {"drop": {change: 2}}
    assert {name: dict(count) for name, count in tally.roles.items()} == {"staff": {change: 2}}
    assert [example.decision_id for example in tally.examples] == ([] if change == "same" else ["t-1", "u-1"])


async def test_examples_are_a_few_of_each_change_of_each_tool() -> None:
    records = [decided(f"t{n}-1", tool=tool) for tool in ("drop", "read") for n in range(9)]
    tally = await replayed(records, always("allow"), always("deny"))
    assert [example.tool for example in tally.examples] == ["drop"] * 3 + ["read"] * 3
    json.dumps(tally.as_json())


async def test_names_are_bounded_whatever_models_make_up() -> None:
    records = [
        decided(f"t{n}-1", tool=f"tool {n}", principal={"id": "x", "roles": [f"role {n}"]})
        for n in range(1200)
    ]
    tally = await replayed(records, always("allow"), always("allow"))
    assert len(tally.tools) == len(tally.roles) == 1001
    assert tally.tools["(others)"]["same"] == 200


async def test_what_was_decided_before_policy_was_asked_is_no_difference() -> None:
    record = decided("t-1", trail=(Step("loop", "Break", 5),), facts={})
    tally = await replayed([record], always("allow"), always("deny"))
    assert (tally.decisions, tally.unasked, sum(tally.changes.values())) == (1, 1, 0)


async def test_a_record_that_does_not_say_what_policy_was_told_cannot_be_judged() -> None:
    tally = await replayed([decided("t-1", facts={})], always("allow"), always("allow"))
    assert dict(tally.changes) == {"indeterminate": 1}
    assert dict(tally.missing) == {"(all of it)": 1}


@pytest.mark.parametrize(
    ("step", "unlike"),
    [
        (Step("policy", "Allow", 1), 0),
        (Step("policy", "Repair", 1), 0),
        (Step("policy", "Allow", 1, ("why",)), 1),
        (Step("policy", "Deny", 1), 1),
    ],
)
async def test_under_the_policies_that_were_in_force_nothing_may_differ(step: Step, unlike: int) -> None:
    record = decided("t-1", trail=(step,))
    tally = await replayed([record], always("allow", revision="r"), always("deny"))
    assert (tally.checked, tally.unlike) == (1, unlike)
    assert tally.unlike_example == ("t-1" if unlike else None)
    other = await replayed([record], always("allow", revision="another"), always("deny"))
    assert other.checked == 0


@pytest.mark.parametrize("case", [case.values[0] for case in CASES if case.values[1] == "chat"])
async def test_policies_decide_what_they_decided(case: dict[str, Any]) -> None:
    outcome = await run(case | {"engine": "starter"}, stream=False)
    records = read_back(outcome.records)
    side = Side(starter())
    tally = await replayed(records, side, side)
    assert tally.unlike == 0
    assert tally.changes["same"] + tally.changes["indeterminate"] + tally.unasked == len(records)


# -- what is not in a record of its own ------------------------------------------------------------


def turn_of(*tools: str, trace: str = "t") -> list[DecisionRecord]:
    batch = [[f"call_{n}", tool] for n, tool in enumerate(tools)]
    return [
        decided(
            f"{trace}-{n + 1}",
            tool=tool,
            call_id=f"call_{n}",
            arguments_written={"n": n},
            facts={"policy": {"turn": 1, "query": "q", "batch": batch, "at": n}},
        )
        for n, tool in enumerate(tools)
    ]


def test_the_calls_of_a_turn_are_told_to_one_another() -> None:
    found = rebuilt(turn_of("a", "b", "a"))
    assert [asked.missing for asked in found] == [(), (), ()]
    for asked in found:
        assert [call["arguments"] for call in asked.document["batch"]] == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_call_that_policy_was_not_asked_about_is_still_one_of_the_turn() -> None:
    first, second = turn_of("a", "b")
    found = rebuilt([replace(first, trail=(Step("loop", "Reask", 1),), facts={}), second])
    (asked,) = found
    assert asked.document["batch"][0]["arguments"] == {"n": 0}
    assert not asked.missing


def test_turns_of_one_exchange_are_told_apart_though_ids_come_again() -> None:
    later = [
        replace(
            record,
            decision_id=f"t-{n + 3}",
            arguments_written={"m": n},
        )
        for n, record in enumerate(turn_of("a", "b"))
    ]
    found = rebuilt([*turn_of("a", "b"), *later])
    assert [call["arguments"] for call in found[2].document["batch"]] == [{"m": 0}, {"m": 1}]


def test_a_turn_that_the_log_does_not_hold_whole_is_missing_a_part() -> None:
    (asked,) = rebuilt(turn_of("a", "b")[:1])
    assert asked.missing == ("/batch/1/arguments",)


def test_turns_do_not_wait_for_ever() -> None:
    rebuilder = Rebuilder(max_waiting=2)
    asked = [one for n in range(5) for one in rebuilder.feed(turn_of("a", "b", trace=f"t{n}")[0])]
    assert [one.record.trace_id for one in asked] == ["t0", "t1", "t2"]


@settings(max_examples=60, deadline=None)
@given(
    turns=st.lists(st.integers(1, 3), min_size=1, max_size=6),
    order=st.lists(st.integers(0, 5), max_size=30),
    waiting=st.integers(6, 9),
)
def test_however_exchanges_are_interleaved_each_decision_is_the_same(
    turns: list[int], order: list[int], waiting: int
) -> None:
    traces = [turn_of(*("abc"[:count]), trace=f"t{number}") for number, count in enumerate(turns)]
    apart = [asked for trace in traces for asked in rebuilt(trace)]
    left, mixed = [list(trace) for trace in traces], []
    for number in [*order, *(n for n, trace in enumerate(traces) for _ in trace)]:
        if number < len(left) and left[number]:
            mixed.append(left[number].pop(0))
    rebuilder = Rebuilder(max_waiting=waiting)
    together = [asked for record in mixed for asked in rebuilder.feed(record)]
    assert not list(rebuilder.finish()), "whole turns wait for nothing"
    assert sorted(together, key=lambda asked: asked.record.decision_id) == sorted(
        apart, key=lambda asked: asked.record.decision_id
    )


def after(*past: str, **changes: Any) -> DecisionRecord:
    calls = [[id, "drop", 1] for id in past]
    return decided(
        "z-1", call_id="new", facts={"policy": {"turn": 2, "query": "q", "calls": calls}}, **changes
    )


def test_earlier_calls_of_the_conversation_are_told() -> None:
    earlier = decided("t-1", arguments_written={"table": "T"}, arguments_forwarded={"table": "t"})
    settled = decided("t-2", call_id="call_2", arguments_forwarded=None, effect="settle")
    *_, asked = rebuilt([earlier, settled, after("call_1", "call_2")])
    assert asked.document["history"] == {
        "calls": [
            # As the application has it, and sends it back; what it never got, as the model wrote it.
            {"id": "call_1", "name": "drop", "arguments": {"table": "t"}, "turn": 1},
            {"id": "call_2", "name": "drop", "arguments": {"table": "t"}, "turn": 1},
        ],
        "labels": [],
        "counts": {"drop": 2},
    }
    assert not asked.missing


@pytest.mark.parametrize("changes", [{"conversation_id": "d"}, {"tool": "other"}, {"call_id": "call_2"}])
def test_another_s_calls_are_not_taken_for_them(changes: dict[str, Any]) -> None:
    *_, asked = rebuilt([decided("t-1", **changes), after("call_1")])
    assert asked.missing == ("/history/calls/0/arguments",)


def test_earlier_calls_are_kept_in_bounded_memory() -> None:
    rebuilder = Rebuilder(max_bytes=100_000)
    for n in range(2000):
        assert len(list(rebuilder.feed(decided(f"t{n}-1", conversation_id=f"c{n}")))) == 1
    (old,) = rebuilder.feed(after("call_1", conversation_id="c0"))
    assert old.missing == ("/history/calls/0/arguments",)
    (new,) = rebuilder.feed(after("call_1", conversation_id="c1999"))
    assert not new.missing


def test_what_was_repaired_before_policy_was_asked_is_what_it_was_told() -> None:
    facts = {"policy": {"turn": 1, "query": "q", "arguments": {"n": 5}}}
    record = decided("t-1", arguments_written={"n": "5"}, facts=facts)
    (asked,) = rebuilt([record])
    assert asked.document["call"]["arguments"] == {"n": 5}
    assert asked.document["batch"][0]["arguments"] == {"n": "5"}


# -- what the log withholds ------------------------------------------------------------------------


def reads_table(input: Mapping[str, Any]) -> dict[str, Any]:
    return denied() if (input["call"]["arguments"] or {}).get("table") == "secret" else {"effect": "allow"}


def withheld(capture: str) -> DecisionRecord:
    written = {"sha256": "0" * 64} if capture == "digest" else None
    facts = {"policy": {"turn": 1, "capture": capture}}
    return decided("t-1", arguments_written=written, arguments_forwarded=written, facts=facts)


@pytest.mark.parametrize("capture", ["digest", "off"])
async def test_without_the_arguments_nobody_can_tell(capture: str) -> None:
    tally = await replayed([withheld(capture)], Side(Says(reads_table)), Side(Says(reads_table)))
    assert dict(tally.changes) == {"indeterminate": 1}
    assert set(tally.missing) >= {"/call/arguments"}


@pytest.mark.parametrize("capture", ["digest", "off"])
async def test_policies_that_do_not_look_at_them_can_be_judged(capture: str) -> None:
    def by_role(input: Mapping[str, Any]) -> dict[str, Any]:
        return {"effect": "allow"} if "staff" in input["principal"]["roles"] else denied()

    side = Side(Says(by_role), mentions={"principal", "roles"}.__contains__)
    tally = await replayed([withheld(capture)], side, side)
    assert dict(tally.changes) == {"same": 1}


async def test_one_that_looks_without_saying_so_is_found_out() -> None:
    """Whatever ``mentions`` says: other stand-ins, another decision."""

    def counts(input: Mapping[str, Any]) -> dict[str, Any]:
        return {"effect": "allow"} if input["call"]["arguments"] is None else denied()

    side = Side(Says(counts), mentions=lambda name: False)
    tally = await replayed([withheld("off")], side, side)
    assert dict(tally.changes) == {"indeterminate": 1}


async def test_a_masked_part_matters_to_those_that_may_read_it() -> None:
    record = decided("t-1", arguments_written={"table": "t", "note": {"text": "[masked]"}})
    blind = Side(Says(reads_table), mentions={"table"}.__contains__)
    reading = Side(Says(reads_table), mentions={"text"}.__contains__)
    assert dict((await replayed([record], blind, blind)).changes) == {"same": 1}
    tally = await replayed([record], blind, reading)
    assert dict(tally.changes) == {"indeterminate": 1}
    assert set(tally.missing) == {"/call/arguments/note/text", "/batch/*/arguments/note/text"}


async def test_what_the_engine_does_not_read_at_all_does_not_matter() -> None:
    class Narrow(Says):
        def reads(self, package: str) -> frozenset[str] | None:
            return frozenset({"principal"})

    side = Side(Narrow(lambda input: {"effect": "allow"}))
    record = decided("t-1", facts={"policy": {"turn": 1, "query": "q", "query_chars": 9000}})
    assert dict((await replayed([record], side, side)).changes) == {"same": 1}
    every = always("allow")
    assert dict((await replayed([record], every, every)).missing) == {"/conversation/query": 1}


async def test_what_models_nest_beyond_measure_is_no_end_of_it() -> None:
    deep: Any = "[masked]"
    for _ in range(5000):
        deep = [deep]
    record = decided("t-1", arguments_written={"deep": deep})
    side = Side(Says(lambda input: {"effect": "allow"}), mentions=lambda name: name == "deep")
    assert dict((await replayed([record], side, side)).changes) == {"indeterminate": 1}


# -- what is recorded ------------------------------------------------------------------------------


async def told(capture: str = "full", mask: Sequence[str] = (), arguments: str = '{"id":"5"}') -> Any:
    call = ToolCall.parse("call_1", "get_user", arguments)
    tool = {"type": "function", "function": {"name": "get_user"}}
    body = {"model": "m", "messages": [{"role": "user", "content": "Who is user 5?"}], "tools": [tool]}
    request = ChatCodec().read(orjson.dumps(body))
    who = Principal("ann", ("staff",), "acme", {"email": "ann@example.com"})
    spec = ToolSpec(name="get_user", parameters={"properties": {"id": {"type": "integer"}}})
    situation = Situation(
        who, request, "trace", "c", "2026-01-01T00:00:00Z", (call,), registry=lambda _: spec
    )
    sink = ListSink()
    engine = FakeEngine({"get_user": {"effect": "deny", "obligations": {"mask": list(mask)}}})
    pipeline = Pipeline(
        [Watched(SchemaGuard()), Watched(PolicyGuard(engine))],
        sink,
        policy_revision=lambda: "r",
        config_digest="d",
        capture=capture,  # type: ignore[arg-type]
    )
    await pipeline.judge(call, situation)
    return orjson.loads(Chain(Link()).append(sink.records[0].fields()))


async def test_a_denied_call_is_recorded_as_policy_saw_it() -> None:
    fact = (await told())["facts"]["policy"]
    assert fact["arguments"] == {"id": 5}
    assert fact["query"] == "Who is user 5?"
    assert fact["claims"] == {"email": "ann@example.com"}
    assert fact["tool"]["name"] == "get_user"


async def test_what_is_masked_is_masked_in_the_facts_as_well() -> None:
    record = await told(mask=["/id"])
    assert record["facts"]["policy"]["arguments"] == {"id": "[masked]"}
    assert '"5"' not in json.dumps(record)


@pytest.mark.parametrize("capture", ["digest", "off"])
async def test_what_is_not_captured_is_not_in_the_facts_either(capture: str) -> None:
    record = await told(capture)
    assert record["facts"]["policy"]["capture"] == capture
    for content in ("Who is", "example.com", '"5"', '{"id": 5}'):
        assert content not in json.dumps(record)


async def test_what_is_written_of_odd_arguments_breaks_no_log() -> None:
    """The writer of the log has no second try: whatever a model writes, there are fields."""
    deep = '{"id":"5","x":' + "[" * 900 + "]" * 900 + "}"
    for arguments in (deep, '{"id":"\\ud800"}', "", "[]", '{"id":1,"id":2}'):
        record = await told(arguments=arguments)
        assert record["facts"].get("policy", {}).get("turn", 1) == 1
