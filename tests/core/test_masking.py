"""What policy masks is in no form in the record of the call."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from proxy.guards.base import Situation
from proxy.guards.policy import PolicyGuard
from proxy.guards.schema import SchemaGuard
from proxy.model import Principal, ToolCall
from proxy.pipeline import Pipeline, Watched
from proxy.record import masked
from proxy.sinks.chain import Chain, Link
from proxy.tools import ToolSpec
from proxy.wire.chat import ChatCodec
from tests.core.harness import FakeEngine, ListSink

CARD = {"type": "object", "properties": {"number": {"type": "string"}}}
PARAMETERS = {
    "type": "object",
    "properties": {"card": CARD, "cards": {"type": "array", "items": CARD}, "note": {"type": "string"}},
}


async def recorded(arguments: Any, *mask: str) -> dict[str, Any]:
    call = ToolCall.parse("call_1", "pay", json.dumps(arguments))
    tool = {"type": "function", "function": {"name": "pay"}}
    body = {"model": "m", "messages": [{"role": "user", "content": "Pay."}], "tools": [tool]}
    spec = ToolSpec(name="pay", parameters=PARAMETERS)
    request = ChatCodec().read(orjson.dumps(body))
    situation = Situation(
        Principal("ann"), request, "trace", "c", "2026-01-01T00:00:00Z", (call,), registry=lambda _: spec
    )
    sink = ListSink()
    engine = FakeEngine({"pay": {"effect": "allow", "obligations": {"mask": list(mask)}}})
    guards = [Watched(SchemaGuard()), Watched(PolicyGuard(engine))]
    pipeline = Pipeline(guards, sink, policy_revision=lambda: "r", config_digest="d")
    await pipeline.judge(call, situation)
    entry: dict[str, Any] = orjson.loads(Chain(Link()).append(sink.records[0].fields()))
    return entry


@pytest.mark.parametrize(
    ("arguments", "pointer", "written"),
    [
        ({"card": {"number": "4111"}}, "/card/number", {"card": {"number": "[masked]"}}),
        ({"card": '{"number":"4111"}', "note": "n"}, "/card/number", {"card": "[masked]", "note": "n"}),
        ({"card": ' {"number": "4111"} '}, "/card/number", {"card": "[masked]"}),
        ({"cards": '[{"number":"4111"}]'}, "/cards/0/number", {"cards": "[masked]"}),
        ({"cards": ['{"number":"4111"}']}, "/cards/0/number", {"cards": ["[masked]"]}),
    ],
)
async def test_what_was_read_from_text_is_masked_in_the_text(
    arguments: Any, pointer: str, written: Any
) -> None:
    entry = await recorded(arguments, pointer)
    assert entry["effect"] == "forward"
    assert entry["arguments_written"] == written
    assert "4111" not in json.dumps(entry)


@pytest.mark.parametrize("value", ["plain", "", " a {b}", 5, None, True, ["x"], {"number": 1}])
@pytest.mark.parametrize("pointer", ["/card/other", f"/card/{'1' * 5000}", "/other"])
def test_a_pointer_that_leads_nowhere_masks_nothing(value: Any, pointer: str) -> None:
    assert masked({"card": value}, [pointer]) == {"card": value}
