"""Whose definitions of tools the model is shown: definitions.yaml on every API; digests, bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from proxy.gates.definitions import DefinitionsGate
from proxy.guards.base import Refused
from proxy.model import OfferedTool, Request, dumps
from proxy.ports import Unavailable
from proxy.record import DefinitionRecord
from proxy.sinks.reading import record_of
from proxy.tools import definition_digest
from tests.core.harness import Outcome, run
from tests.core.protocols import PROTOCOLS, Protocol
from tests.gates.conftest import Records, registry_of, situation_of

Json = dict[str, Any]
CASES = [
    pytest.param(case, protocol, id=f"{protocol}-{case['name']}")
    for case in yaml.safe_load((Path(__file__).parent / "definitions.yaml").read_text(encoding="utf-8"))
    for protocol in case.get("protocols", PROTOCOLS)
]


def wire_tools(protocol: Protocol, body: Mapping[str, Any]) -> dict[str, Json]:
    """The definitions by name as the neutral words have them."""
    tools = {}
    for wire in body.get("tools", ()):
        inner = wire[wire["type"]] if protocol.name == "chat" else wire
        tools[inner["name"]] = {**inner, "parameters": inner.get("parameters", inner.get("input_schema"))}
    return tools


@pytest.mark.parametrize(("case", "name"), CASES)
async def test_case(case: Json, name: str) -> None:
    protocol = PROTOCOLS[name]
    given = {"tools": case["offered"]} if "offered" in case else {}
    body = protocol.request(given, False) | case.get("extra", {})
    outcome = await run({"upstream": [{"text": "Done."}], **case}, False, body=body, protocol=name)
    if "refused" in case:
        check_refused(case["refused"], outcome, protocol)
    else:
        check_sent(case, orjson.dumps(body), outcome, protocol)
    if "admission" in case:
        assert outcome.exchange.fields()["admission"] == case["admission"]
    if "noticed" in case:
        noticed = [record.fields() for record in outcome.records if isinstance(record, DefinitionRecord)]
        assert [{k: got[k] for k in want} for got, want in zip(noticed, case["noticed"], strict=True)] == [
            {k: tuple(v) if isinstance(v, list) else v for k, v in want.items()} for want in case["noticed"]
        ]


def check_refused(tool: str, outcome: Outcome, protocol: Protocol) -> None:
    assert not outcome.upstream.asks, "what is refused is not sent"
    assert outcome.client.status == 403
    error = protocol.read(outcome.client.data, False).error
    assert error is not None
    assert f"'{tool}'" in error["message"]
    assert "callgate schema pin" in error["message"]
    assert outcome.exchange.outcome == "refused"


def check_sent(case: Json, came: bytes, outcome: Outcome, protocol: Protocol) -> None:
    raw = outcome.upstream.asks[0].body
    sent = orjson.loads(raw)
    if case.get("same"):
        assert raw == came
    assert list(sent) == list(orjson.loads(came)), "the rest keeps its order"
    tools = wire_tools(protocol, sent) if "shown" in case else {}
    assert list(tools) == list(case.get("shown", {}))
    for name, want in case.get("shown", {}).items():
        assert {key: tools[name].get(key) for key in want} == want
    assert {key: sent[key] for key in case.get("sent_body", {})} == case.get("sent_body", {})
    assert case.get("lacks_text", "\0") not in raw.decode()
    assert protocol.read(outcome.client.data, False).first.text == case.get("client", "Done.")


PIN = definition_digest(OfferedTool("get_user", {"type": "object"}, "Finds a user."))
PINNED = registry_of({"name": "get_user", "pin": PIN})


def offering(*definitions: Json, protocol: str = "chat") -> Request:
    """A request that offers these functions."""
    spoken = PROTOCOLS[protocol]
    return spoken.codec.read(dumps(spoken.request({"tools": list(definitions)}, False)))


async def admit(gate: DefinitionsGate, request: Request) -> Request:
    return await gate.admit(request, situation_of(request, PINNED))


def drifted(words: str = "Another.") -> Request:
    return offering({"name": "get_user", "description": words, "parameters": {"type": "object"}})


async def test_a_drift_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    records = Records()
    gate = DefinitionsGate(records, pin="report")
    for _ in range(3):
        request = drifted()
        situation = situation_of(request, PINNED)
        assert await gate.admit(request, situation) is request
        assert situation.admission == {"drifted": ["get_user"]}, "every request that has it says so"
    assert len(records.records) == 1
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "'get_user' has drifted" in caplog.text
    assert "Another." not in caplog.text


async def test_what_a_client_invents_does_not_fill_the_log() -> None:
    records = Records()
    gate = DefinitionsGate(records, pin="report", record=True)
    for number in range(100):
        await admit(gate, drifted(f"Number {number}."))
    assert len(records.records) == 17, "16, and one in this minute"
    for number in range(5000):
        await admit(gate, offering({"name": f"tool_{number}"}))
    assert len(records.records) == 17 + 4095


async def test_what_a_client_invents_does_not_keep_the_log_from_what_matters() -> None:
    records = Records()
    gate = DefinitionsGate(records, pin="report", record=True)
    for number in range(4096):
        await admit(gate, offering({"name": f"tool_{number}"}))
    await admit(gate, drifted())
    assert len(records.records) == 4097, "another's names do not use up those that are pinned"
    for minute in range(40):
        request = drifted(f"Number {minute}.")
        situation = situation_of(request, PINNED)
        situation.time = f"2026-01-01T13:{minute:02}:00Z"
        await gate.admit(request, situation)
    assert len(records.records) == 4097 + 40


async def test_a_log_that_refuses_is_tried_again() -> None:
    class Full(Records):
        def write(self, record: Any) -> None:
            if not self.records:
                self.records.append(None)  # type: ignore[arg-type]
                raise Unavailable("full")
            super().write(record)

    sink = Full()
    gate = DefinitionsGate(sink, pin="report")
    await admit(gate, drifted())
    await admit(gate, drifted())
    assert [type(record) for record in sink.records[1:]] == [DefinitionRecord]


async def test_a_definition_that_cannot_be_written_is_not_as_it_was_pinned() -> None:
    deep: Json = {}
    for _ in range(900):
        deep = {"items": deep}
    tool = {"type": "function", "function": {"name": "get_user", "parameters": deep}}
    request = offering({"name": "get_user"})
    request = replace(request, body={**request.body, "tools": [tool]})
    with pytest.raises(Refused):
        await admit(DefinitionsGate(Records(), pin="refuse"), request)


async def test_a_definition_that_is_too_long_leaves_its_digest() -> None:
    records = Records()
    await admit(DefinitionsGate(records, record=True), drifted("x" * 70_000))
    (record,) = records.records
    assert isinstance(record, DefinitionRecord)
    assert record.definition is None
    assert record.digest.startswith("sha256:")


async def test_a_record_is_read_back() -> None:
    records = Records()
    await admit(DefinitionsGate(records, pin="report"), drifted())
    line = orjson.loads(orjson.dumps(records.records[0].fields()))
    assert record_of(line) == records.records[0]


async def test_a_gate_that_has_nothing_to_do_reads_no_definition() -> None:
    request = drifted()

    def fail(*_: Any) -> None:
        raise AssertionError

    object.__setattr__(request, "reader", type("Reader", (), {"redefine": fail, "offered_tools": fail})())
    request.__dict__["tools"] = {"get_user": OfferedTool("get_user")}
    assert await admit(DefinitionsGate(Records()), request) is request
