"""Every result, in every request, comes out the same; what was worked out once is known."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engines.patterns import LinearPatterns
from proxy.gates.results import MAX_POLICY_CHARS, ResultsGate, result_input
from proxy.guards.base import Refused
from proxy.model import History, PastCall, PastResult
from proxy.ports import Unavailable
from proxy.record import ResultRecord
from proxy.tools import ResultRule
from proxy.wire.chat import ChatCodec
from tests.gates.conftest import CountingEngine, Records, registry_of, request_of, situation_of

Start = Callable[..., tuple[ResultsGate, CountingEngine, Records]]
LABEL = 'decision := {"effect": "allow", "labels": ["untrusted"]}'
DIGITS = 'decision := {"effect": "redact", "patterns": ["[0-9]+"], "labels": [input.tool.name]}'


def steps(*contents: str) -> list[dict[str, Any]]:
    return [
        step
        for at, content in enumerate(contents)
        for step in (
            {"call": {"id": f"c{at}", "name": "get"}},
            {"result": {"id": f"c{at}", "content": content}},
        )
    ]


def texts(request: Any) -> list[str]:
    return [result.content for result in request.results]


async def test_each_text_is_worked_out_once(results: Start) -> None:
    gate, engine, records = results(DIGITS)
    for size in range(1, 5):
        request = request_of(steps(*[f"number {n}" for n in range(size)]))
        situation = situation_of(request)
        admitted = await gate.admit(request, situation)
        assert texts(admitted) == ["number [redacted]"] * size
        assert situation.labels == {"get"}
        assert situation.policy_input["history"]["labels"] == ["get"]
    assert len(engine.asked) == 4
    assert [record.call_id for record in records.records] == ["c0", "c1", "c2", "c3"], "only what is new"


@given(contents=st.lists(st.text(alphabet="ab19{}\"' \n"), min_size=1, max_size=5))
async def test_a_conversation_that_grows_keeps_its_beginning(contents: list[str]) -> None:
    engine = CountingEngine({"result.rego": f"package callgate.result\n\n{DIGITS}\n"})
    gate = ResultsGate(engine, LinearPatterns(), Records(), ResultRule(max_bytes=256, patterns=("a+",)))
    sent: list[str] = []
    for size in range(1, len(contents) + 1):
        request = request_of(steps(*contents[:size]))
        now = texts(await gate.admit(request, situation_of(request)))
        assert now[: size - 1] == sent
        sent = now
        assert not any(char in text for text in now for char in "19")


async def test_one_principal_s_answer_is_not_another_s(results: Start) -> None:
    policy = """default decision := {"effect": "deny", "reasons": ["No."]}

decision := {"effect": "allow"} if "admin" in input.principal.roles"""
    gate, engine, _ = results(policy)
    request = request_of(steps("secret"))
    for _ in range(2):
        assert await gate.admit(request, situation_of(request, roles=("admin",))) is request
        refused = await gate.admit(request, situation_of(request))
        assert b"secret" not in refused.raw
    assert len(engine.asked) == 2


async def test_call_ids_that_come_twice_are_two_results(results: Start) -> None:
    gate, _, records = results(DIGITS)
    twice = [*steps("first 1"), *steps("second 2")]
    admitted = await gate.admit(request := request_of(twice), situation_of(request))
    assert texts(admitted) == ["first [redacted]", "second [redacted]"]
    assert len(records.records) == 2


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "tool_call_id": "c9", "content": "no call 1"},
        {"role": "tool", "content": "no id 1"},
        {"role": "tool", "tool_call_id": "", "content": "empty id 1"},
        {"role": "tool", "tool_call_id": 7, "content": "odd id 1"},
        {"role": "function", "name": "get", "content": "legacy 1"},
        {"role": "tool", "tool_call_id": "c0", "content": [{"type": "text", "text": "parts 1"}]},
        {"role": "tool", "tool_call_id": "message 3", "content": "a key 1"},
    ],
)
async def test_no_result_walks_past(results: Start, message: dict[str, Any]) -> None:
    gate, _, _ = results(DIGITS)
    request = request_of(steps("0"))
    body = request.body | {"messages": [*request.body["messages"], message, message]}
    request = ChatCodec().read(orjson.dumps(body))
    admitted = await gate.admit(request, situation_of(request))
    assert len(admitted.results) == 3
    assert not any(char.isdigit() for text in texts(admitted) for char in text)


async def test_what_the_provider_remembers_taints_too(results: Start) -> None:
    gate, _, records = results(LABEL)
    request = replace(
        request_of(),
        earlier=History(calls=(PastCall("c", "get", "{}", "x", 1), PastCall("d", "get", "{}", None, 1))),
    )
    situation = situation_of(request)
    assert await gate.admit(request, situation) is request
    assert situation.labels == {"untrusted"}
    assert not records.records


async def test_without_anything_to_do_the_request_is_the_same(results: Start) -> None:
    gate, _, records = results(redact=["secrets"])
    request = request_of(steps("harmless", "x" * 1000))
    assert await gate.admit(request, situation_of(request)) is request
    (record,) = records.records
    assert isinstance(record, ResultRecord)
    assert (record.effect, record.bytes_before, record.bytes_after) == ("pass", 1000, 1000)


async def test_a_description_adds_to_the_rules_for_all(results: Start) -> None:
    gate, _, _ = results(patterns=["all"])
    registry = registry_of({"name": "get", "results": {"patterns": ["own"], "max_bytes": 256}})
    request = request_of(steps("all own", "x" * 300))
    admitted = await gate.admit(request, situation_of(request, registry))
    first, second = texts(admitted)
    assert first == "[redacted] [redacted]"
    assert "left out" in second
    plain = await gate.admit(request, situation_of(request))
    assert texts(plain)[0] == "[redacted] own"


async def test_a_description_that_changes_counts_at_once(results: Start) -> None:
    gate, _, _ = results()
    request = request_of(steps("ab"))
    for pattern, left in [("a", "[redacted]b"), ("b", "a[redacted]")] * 20:
        registry = registry_of({"name": "get", "results": {"patterns": [pattern]}})
        assert texts(await gate.admit(request, situation_of(request, registry))) == [left]


async def test_secrets_do_not_survive_at_a_cut(results: Start) -> None:
    gate, _, _ = results(redact=["secrets"], max_bytes=256)
    secret = "sk-" + "a" * 100
    for lead in range(0, 400, 7):
        request = request_of(steps("." * lead + " " + secret + " " + "." * 400))
        assert b"aaaaaa" not in (await gate.admit(request, situation_of(request))).raw


async def test_a_fault_keeps_the_result_back_until_it_is_mended(
    results: Start, caplog: pytest.LogCaptureFixture
) -> None:
    gate, engine, records = results(LABEL)
    works = engine.decide

    async def fails(package: str, input: Any) -> Any:
        raise Unavailable("down")

    request = request_of(steps("secret"))
    engine.decide = fails  # type: ignore[method-assign]
    with caplog.at_level(logging.ERROR):
        admitted = await gate.admit(request, situation_of(request))
    assert orjson.loads(texts(admitted)[0])["error"]["type"] == "result_withheld"
    assert b"secret" not in admitted.raw
    assert "secret" not in caplog.text
    assert records.records[0].fields()["effect"] == "replace"
    engine.decide = works  # type: ignore[method-assign]
    assert await gate.admit(request, situation_of(request)) is request


async def test_a_record_that_cannot_be_kept_stops_nothing(results: Start) -> None:
    gate, _, records = results()

    def full(record: Any) -> None:
        raise Unavailable("full")

    records.write = full  # type: ignore[method-assign]
    request = request_of(steps("x"))
    assert await gate.admit(request, situation_of(request)) is request


class Stubborn(ChatCodec):
    """A codec that cannot put other text in a result's place."""

    def with_results(self, request: Any, contents: Any) -> Any:
        return request


async def test_what_cannot_be_taken_out_is_not_sent(results: Start) -> None:
    gate, _, _ = results(DIGITS)
    request = Stubborn().read(request_of(steps("1")).raw)
    with pytest.raises(Refused):
        await gate.admit(request, situation_of(request))


@pytest.mark.parametrize(
    ("content", "seen", "truncated"),
    [
        ('{"a": 1}', {"a": 1}, False),
        (' [1, "x"]', [1, "x"], False),
        ('{"a": 1, "a": 2}', '{"a": 1, "a": 2}', False),
        ("42", "42", False),
        ('"text"', '"text"', False),
        ("[" * 3000, "[" * 3000, False),
        ("x" * (MAX_POLICY_CHARS + 1), "x" * MAX_POLICY_CHARS, True),
    ],
    ids=lambda value: str(value)[:12],
)
def test_policy_sees_json_as_json(content: str, seen: Any, truncated: bool) -> None:
    told = result_input(PastResult("c", "c", "get", content), content)
    assert told == {"call_id": "c", "tool": "get", "content": seen, "truncated": truncated}


async def test_what_is_kept_is_bounded(results: Start) -> None:
    gate, _, _ = results(patterns=["1"])
    for n in range(40):
        request = request_of(steps(f"{n} " + "1" * 2**10 + "x" * 2**20))
        await gate.admit(request, situation_of(request))
    assert gate._known.currsize <= gate._known.maxsize
    assert len(gate._known) < 10
