"""Routes and guidance on every API: what the provider is asked, and that its prefix stays the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from proxy.gates.routing import Guidance, GuidanceGate, Route, RoutingGate
from proxy.guards.base import Situation
from proxy.model import Principal, Request
from tests.core.protocols import PROTOCOLS
from tests.gates.histories import HISTORIES

CASES = yaml.safe_load((Path(__file__).parent / "routing.yaml").read_text(encoding="utf-8"))
USER: list[dict[str, Any]] = [{"user": "Who is it?"}]


def reading(protocol: str, tools: list[str], history: list[dict[str, Any]]) -> Request:
    spoken = PROTOCOLS[protocol]
    body = spoken.request({"tools": tools} if tools else {}, False) | HISTORIES[protocol](history)
    request: Request = spoken.codec.read(orjson.dumps(body))
    return request


async def admitted(case: dict[str, Any], request: Request) -> tuple[Request, Situation]:
    told = Situation(Principal("ann"), request, "trace", "conversation", "2026-01-01T00:00:00Z")
    routes = [Route(tuple(r["models"]), r.get("decide"), r.get("answer")) for r in case.get("routing", ())]
    guidance = [
        Guidance(g["text"], tuple(g.get("tools", ["*"])), tuple(g.get("models", ["*"])))
        for g in case.get("guidance", ())
    ]
    routed = await RoutingGate(routes).admit(request, told)
    return await GuidanceGate(guidance).admit(routed, told), told


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
async def test_case(case: dict[str, Any], protocol: str) -> None:
    came = reading(protocol, case.get("tools", []), case.get("history", USER))
    sent, told = await admitted(case, came)
    expected = case["sent"]
    assert (sent.raw == came.raw) is expected.get("same", False)
    again = PROTOCOLS[protocol].codec.read(sent.raw)
    assert sent.model == again.model == expected.get("model", came.model)
    assert told.admission.get("model") == expected.get("routed")
    assert list(again.tools) == list(came.tools)
    assert again.history.query == came.history.query
    assert expected.get("contains", "") in sent.raw.decode()
    assert expected.get("lacks", "never said") not in sent.raw.decode()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_prefix_of_a_conversation_stays(protocol: str) -> None:
    case = {"guidance": [{"text": "Be brief."}]}
    first, _ = await admitted(case, reading(protocol, ["get_user"], USER))
    again, _ = await admitted(case, reading(protocol, ["get_user"], USER))
    longer = [*USER, {"said": "Ann."}, {"user": "And now?"}]
    later, _ = await admitted(case, reading(protocol, ["get_user"], longer))
    assert first.raw == again.raw
    for name in ("messages", "input"):
        if name in first.body:
            before = [message for message in first.body[name] if message.get("role") != "user"]
            assert later.body[name][: len(before)] == before
    assert first.body.get("system") == later.body.get("system")
    assert first.body.get("instructions") == later.body.get("instructions")
