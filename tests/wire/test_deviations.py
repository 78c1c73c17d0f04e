"""What clients make of every deviation: all of them, and the openai SDK, find the same calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.core.harness import run
from tests.wire.clients import Failed, rebuilt

FILES = Path(__file__).parent.parent / "cases"
CASES = [
    case
    for name in ("core.yaml", "chat_deviations.yaml")
    for case in yaml.safe_load((FILES / name).read_text())
    if "chat" in case.get("protocols", ["chat"])
]
EACH = pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in CASES])
STREAM_OR_BODY = pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])


@STREAM_OR_BODY
@EACH
async def test_every_client_finds_the_same_calls(case: dict[str, Any], stream: bool) -> None:
    outcome = await run(case, stream)
    expected = case["client"]
    if outcome.client.status != 200 or "error" in expected or "error_any" in expected:
        if outcome.client.status == 200:
            with pytest.raises(Failed):
                rebuilt(outcome.client.data, stream)
        return
    # The SDK's accumulator knows no custom calls.
    custom = any("custom" in str(tool) for tool in case["request"].get("tools", []))
    found = rebuilt(outcome.client.data, stream, sdk=not (custom and stream))
    choices = {0: expected} | expected.get("choices", {})
    for client, calls in found.items():
        for index, choice in choices.items():
            if "calls" in choice:
                names = [(call["name"], call["arguments"]) for call in choice["calls"]]
                assert [call[1:] for call in calls.get(index, [])] == names, client
        assert calls == found["appending by_events" if stream else "plain"], client


@STREAM_OR_BODY
@pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in CASES if "stream" in c["client"]])
async def test_what_is_canonical_is_verbatim_and_what_is_not_is_written_again(
    case: dict[str, Any], stream: bool
) -> None:
    outcome = await run(case, stream)
    (sent,) = outcome.upstream.sent
    said = case["client"]["stream" if stream else "body"]
    assert (outcome.client.data == sent) is (said == "same")
