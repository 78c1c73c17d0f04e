"""Streams and bodies as providers send them, the odd ones too, and what every client makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.harness import Outcome
from tests.core.view_messages import read
from tests.wire.messages.clients import CLIENTS, Failed
from tests.wire.messages.playing import play, written

HERE = Path(__file__).parent


def _load(name: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in yaml.safe_load((HERE / name).read_text())]


STREAMS, BODIES = _load("streams.yaml"), _load("bodies.yaml")


def _answers(case: dict[str, Any]) -> list[bytes]:
    if "body" in case:
        return [case["body"].encode(), *(body.encode() for body in case.get("rounds", []))]
    first = written(case["stream"], case.get("line_end", "\n"), case.get("unnamed_from"))
    return [first, *map(written, case.get("rounds", []))]


def _check(expected: dict[str, Any], outcome: Outcome, stream: bool) -> None:
    raw = outcome.client.data
    for secret in expected.get("hidden", []):
        assert f'"{secret}"'.encode() not in raw
    for shown in expected.get("shown", []):
        assert shown.encode() in raw
    answer = read(raw, stream and outcome.client.status == 200)
    if "error" in expected:
        assert answer.error is not None
        assert answer.error["code"] == expected["error"]
        assert not answer.first.calls
        assert not answer.done or not stream
        return
    assert answer.error is None
    assert answer.done
    assert answer.first.text == expected.get("text", "")
    got = [
        {k: call[k] for k in want} for call, want in zip(answer.first.calls, expected["calls"], strict=True)
    ]
    assert got == expected["calls"]
    assert answer.first.finish == expected["finish"]
    if expected.get("verbatim"):
        assert raw == outcome.upstream.sent[0]
    if "judged" in expected:
        assert [record.fields()["gen_ai.tool.name"] for record in outcome.decisions] == expected["judged"]


@pytest.mark.parametrize("case", STREAMS)
async def test_a_stream(case: dict[str, Any]) -> None:
    _check(case["client"], await play(_answers(case), True), True)


@pytest.mark.parametrize("case", BODIES)
async def test_a_body(case: dict[str, Any]) -> None:
    _check(case["client"], await play(_answers(case), False), False)


@pytest.mark.parametrize("case", STREAMS)
async def test_every_client_finds_the_same_calls(case: dict[str, Any]) -> None:
    data = (await play(_answers(case), True)).client.data
    expected = case["client"]
    for name, client in CLIENTS.items():
        if "error" in expected:
            with pytest.raises(Failed):
                client(data)
        else:
            found = [(call[1], call[2]) for call in client(data)]
            wanted = [(call["name"], orjson.loads(call["arguments"])) for call in expected["calls"]]
            assert found == wanted, name


@pytest.mark.parametrize("case", STREAMS)
@settings(max_examples=6, deadline=None)
@given(cuts=st.lists(st.integers(0, 2**16), max_size=12))
async def test_however_a_stream_is_cut(case: dict[str, Any], cuts: list[int]) -> None:
    whole = await play(_answers(case), True)
    cut = await play(_answers(case), True, cuts)
    assert cut.comparable() == whole.comparable()
