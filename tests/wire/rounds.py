"""Conversations of several rounds with one denied tool, for the tests of this folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.core.harness import Outcome, run
from tests.wire.answers import call

Json = dict[str, Any]
DENIED = {"drop": {"effect": "deny", "reasons": ["Not for you."]}}
STREAM_OR_BODY = pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "body"])


def raw(data: bytes, is_stream: bool) -> Json:
    media = "text/event-stream" if is_stream else "application/json"
    return {"fault": {"kind": "raw", "raw": data, "content_type": media}}


async def ask(
    turns: Sequence[Json], is_stream: bool, tools: Sequence[str] = ("drop", "go"), **given: Any
) -> Outcome:
    case = {"request": {"tools": list(tools), **given}, "policy": DENIED, "upstream": list(turns)}
    return await run(case, is_stream)


def asked(outcome: Outcome, number: int) -> Json:
    return json.loads(outcome.upstream.asks[number].body)


DROP = call('{"t": 1}', "drop", "call_drop")
