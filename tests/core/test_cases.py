"""Every case of tests/cases, as a stream and as a body, whole and cut anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.harness import Outcome, run
from tests.core.protocols import PROTOCOLS
from tests.core.view import Answer, View

CASES = [
    pytest.param(case, protocol, id=f"{protocol}-{case['name']}")
    for file in sorted((Path(__file__).parent.parent / "cases").glob("*.yaml"))
    for case in yaml.safe_load(file.read_text())
    for protocol in PROTOCOLS
    if protocol in case.get("protocols", PROTOCOLS)
]
STREAM_OR_BODY = pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])


@STREAM_OR_BODY
@pytest.mark.parametrize(("case", "protocol"), CASES)
async def test_case(case: dict[str, Any], protocol: str, stream: bool) -> None:
    outcome = await run(case, stream, protocol=protocol)
    answer = PROTOCOLS[protocol].read(outcome.client.data, stream and outcome.client.status == 200)
    check_client(case["client"], outcome, answer, stream)
    check_records(case, outcome)
    assert len(answer.ids) <= 1, "one answer has one id"
    assert answer.usages <= 1, "usage is said once"


def check_client(expected: dict[str, Any], outcome: Outcome, answer: Answer, stream: bool) -> None:
    raw = outcome.client.data
    for secret in expected.get("hidden", []):
        assert secret.encode() not in raw
    if "error" in expected or "error_any" in expected:
        wanted = expected.get("error_any") or [expected["error"]]
        assert answer.error is not None
        assert answer.error["code"] in wanted
        assert not any(choice.calls for choice in answer.choices.values())
        assert not any(choice.finish for choice in answer.choices.values())
    else:
        assert answer.error is None
        assert answer.done
        _check_choice(expected, answer.first)
        for index, choice in expected.get("choices", {}).items():
            _check_choice(choice, answer.choices[index])
    if "status" in expected:
        assert outcome.client.status == expected["status"]
    if expected.get("verbatim"):
        assert raw == outcome.upstream.sent[0]


def _check_choice(expected: dict[str, Any], view: View) -> None:
    if "text" in expected:
        assert view.text == expected["text"]
    if "text_contains" in expected:
        assert expected["text_contains"] in view.text
    if "calls" in expected:
        got = [
            {key: call[key] for key in want} for call, want in zip(view.calls, expected["calls"], strict=True)
        ]
        assert got == expected["calls"]
    assert view.finish == expected["finish"]


def check_records(case: dict[str, Any], outcome: Outcome) -> None:
    decisions = [record.fields() for record in outcome.decisions]
    assert len(decisions) == len(case["records"])
    for got, want in zip(decisions, case["records"], strict=True):
        assert {key: got[key] for key in want} == want
    exchange = outcome.exchange.fields()
    assert {key: exchange[key] for key in case.get("exchange", {})} == case.get("exchange", {})
    assert exchange["decisions"] == tuple(record.decision_id for record in outcome.decisions)


@STREAM_OR_BODY
@pytest.mark.parametrize(("case", "protocol"), CASES)
async def test_byte_by_byte_is_the_same(case: dict[str, Any], protocol: str, stream: bool) -> None:
    whole = await run(case, stream, protocol=protocol)
    bytewise = await run(case, stream, cuts=(), protocol=protocol)
    assert bytewise.comparable() == whole.comparable()


@STREAM_OR_BODY
@pytest.mark.parametrize(("case", "protocol"), CASES)
@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 2**20), min_size=1, max_size=12))
async def test_any_cut_is_the_same(
    case: dict[str, Any], protocol: str, stream: bool, cuts: list[int]
) -> None:
    whole = await run(case, stream, protocol=protocol)
    cut = await run(case, stream, cuts=cuts, protocol=protocol)
    assert cut.comparable() == whole.comparable()
