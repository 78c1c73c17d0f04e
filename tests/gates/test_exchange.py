"""Gates within an exchange, and over the requests of one conversation."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.config import ConfigFault, Settings
from proxy.record import ResultRecord
from tests.core.harness import Outcome, World, run
from tests.core.protocols import PROTOCOLS
from tests.gates.histories import HISTORIES

CASE: dict[str, Any] = {
    "request": {"tools": ["get_user", "drop"]},
    "policy": {"drop": {"effect": "deny", "reasons": ["Not for you."]}},
    "result_policy": {"get_user": {"effect": "redact", "pointers": ["/ssn"]}},
    "upstream": [
        {
            "calls": [
                {"name": "get_user", "arguments": {}, "id": "call_user"},
                {"name": "drop", "arguments": {}, "id": "call_drop"},
            ]
        },
        {
            "text": "Done.",
            "expect": {"tool_results": {"call_user": "[redacted]", "call_drop": "Not for you."}},
        },
    ],
}


def results(outcome: Outcome) -> list[dict[str, Any]]:
    return [record.fields() for record in outcome.records if isinstance(record, ResultRecord)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_results_that_the_proxy_puts_back_are_not_recorded_as_the_client_s(protocol: str) -> None:
    spoken, world = PROTOCOLS[protocol], World()
    step: dict[str, Any] = {"user": "Do it."}
    begun = spoken.request(CASE["request"], False) | HISTORIES[protocol]([step])
    first = await run(CASE, False, world=world, body=begun, protocol=protocol)
    assert [call["name"] for call in spoken.read(first.client.data, False).first.calls] == ["get_user"]
    told = [
        step,
        {"call": {"id": "call_user", "name": "get_user"}},
        {"result": {"id": "call_user", "content": '{"ssn": "123-45"}'}},
    ]
    later = begun | HISTORIES[protocol](told)
    second = await run(CASE, False, world=world, body=later, protocol=protocol)
    assert second.exchange.restored == 1
    assert spoken.read(second.client.data, False).first.text == "Done."
    assert [(record["call_id"], record["effect"]) for record in results(second)] == [("call_user", "redact")]
    assert b"123-45" not in second.upstream.asks[0].body


def test_patterns_that_cannot_be_used_are_named_at_the_start(tmp_path: Any) -> None:
    from proxy.app import build

    (tmp_path / "get.yaml").write_text("name: get\nresults: {patterns: ['ok', '(a)\\1']}\n")
    settings = Settings.model_validate(
        {"results": {"patterns": ["[0-9]+", "(?=x)"]}, "tools": {"paths": [str(tmp_path)]}}
    )
    with pytest.raises(ConfigFault) as caught:
        build(settings, {})
    first, second = caught.value.faults
    assert first.startswith("results.patterns[1]: ")
    assert second.startswith("tool 'get': results.patterns[1]: ")
