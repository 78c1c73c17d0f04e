"""Every case of cases.yaml on every API: what is sent to the provider, and what the client is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from proxy.record import ResultRecord
from tests.core.harness import Outcome, World, run
from tests.core.protocols import PROTOCOLS, Protocol
from tests.gates.histories import HISTORIES

CASES = [
    pytest.param(case, protocol, id=f"{protocol}-{case['name']}")
    for case in yaml.safe_load((Path(__file__).parent / "cases.yaml").read_text(encoding="utf-8"))
    for protocol in case.get("protocols", PROTOCOLS)
    if protocol in PROTOCOLS
]


def body_of(case: Mapping[str, Any], protocol: Protocol, stream: bool) -> dict[str, Any]:
    """The case's request as this API writes it."""
    history = HISTORIES[protocol.name](case.get("history", [{"user": "Do it."}]))
    body = protocol.request(case["request"], stream) | history
    extra = case.get("extra", {}).get(protocol.name, {})
    return body | extra


async def outcome_of(case: Mapping[str, Any], protocol: str, stream: bool) -> tuple[bytes, Outcome]:
    spoken = PROTOCOLS[protocol]
    body = body_of(case, spoken, stream)
    # The provider's turns go by how many answers the request holds already.
    answered = [{"text": "Said before."} for step in case.get("history", ()) if {"call", "said"} & set(step)]
    case = {**case, "upstream": [*answered, *case.get("upstream", [{"text": "Done."}])]}
    outcome = await run(case, stream, world=World(), body=body, protocol=protocol)
    return orjson.dumps(body), outcome


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize(("case", "protocol"), CASES)
async def test_case(case: dict[str, Any], protocol: str, stream: bool) -> None:
    came, outcome = await outcome_of(case, protocol, stream)
    if case["sent"] is None:
        assert not outcome.upstream.asks, "what is refused is not sent"
    else:
        _check_sent(case["sent"], came, outcome, PROTOCOLS[protocol])
    _check_client(case.get("client", {}), outcome, PROTOCOLS[protocol], stream)
    if "admission" in case:
        assert outcome.exchange.fields()["admission"] == case["admission"]
    if "inspected" in case:
        records = [record.fields() for record in outcome.records if isinstance(record, ResultRecord)]
        assert len(records) == len(case["inspected"])
        for got, want in zip(records, case["inspected"], strict=True):
            assert {key: got[key] for key in want} == want


def _check_sent(expected: Mapping[str, Any], came: bytes, outcome: Outcome, protocol: Protocol) -> None:
    raw = outcome.upstream.asks[0].body
    sent = protocol.codec.read(raw)
    results = {result.call_id: result.content for result in sent.results}
    if expected.get("same"):
        assert raw == came
    if "tools" in expected:
        assert list(sent.tools) == expected["tools"]
    if "hosted" in expected:
        assert [tool.type for tool in sent.hosted] == expected["hosted"]
    for id, text in expected.get("results", {}).items():
        assert results[id] == text
    if "alike" in expected:
        assert len({results[id] for id in expected["alike"]}) == 1
    for key, value in expected.get("body", {}).items():
        assert sent.body[key] == value
    assert not set(expected.get("lacks", ())) & sent.body.keys()
    assert expected.get("contains", "") in raw.decode()
    assert "lacks_text" not in expected or expected["lacks_text"] not in raw.decode()
    order = [key for key in orjson.loads(came) if key in sent.body]
    assert list(sent.body) == order, "what is left keeps its order"


def _check_client(expected: Mapping[str, Any], outcome: Outcome, protocol: Protocol, stream: bool) -> None:
    assert outcome.client.status == expected.get("status", 200)
    answer = protocol.read(outcome.client.data, stream and outcome.client.status == 200)
    if "error" in expected:
        assert answer.error is not None
        assert expected["error"] in orjson.dumps(answer.error).decode()
        assert expected.get("message", "") in answer.error["message"]
        assert outcome.exchange.outcome == "refused"
    else:
        assert answer.error is None
        assert answer.first.text == expected.get("text", "Done.")
