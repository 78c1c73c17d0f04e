"""Decisions on requests are asked for once, and again as soon as anything changes that they depend on."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.engines.sources.policyset import PolicySet
from proxy.gates.request import RequestGate
from proxy.gates.tools import ToolsGate
from proxy.guards.base import Refused
from proxy.model import Request
from proxy.wire.chat import ChatCodec
from tests.gates.conftest import CountingEngine, registry_of, request_of, situation_of

HIDE = {
    "tools.rego": """package callgate.tools

decision := {"hide": [tool.name | some tool in input.tools; not granted(tool)]}

granted(tool) if {
	some role in input.principal.roles
	tool.effect in data.effects[role]
}
"""
}
EFFECTS = {"effects": {"support": ["read"], "admin": ["read", "write"]}}


def hiding_rule(condition: str) -> str:
    return f'package callgate.tools\n\ndecision := {{"hide": [x | x := "a"; {condition}]}}\n'


def hiding(condition: str) -> CountingEngine:
    return CountingEngine({"tools.rego": hiding_rule(condition)})


async def shown(gate: ToolsGate, tools: list[str], registry: Any = None, **principal: Any) -> list[str]:
    request = request_of(tools=tools)
    admitted = await gate.admit(request, situation_of(request, registry, **principal))
    assert (admitted is request) == (list(admitted.tools) == tools), "what is not changed is the same request"
    return list(admitted.tools)


async def test_what_was_decided_is_known() -> None:
    gate = ToolsGate(engine := CountingEngine(HIDE, EFFECTS))
    registry = registry_of({"name": "a", "effect": "read"}, {"name": "b", "effect": "write"})
    for _ in range(3):
        assert await shown(gate, ["a", "b"], registry) == ["a"]
    assert len(engine.asked) == 1


@pytest.mark.parametrize(
    "principal", [{"roles": ("admin",)}, {"id": "bob"}, {"tenant": "acme"}, {"claims": {"a": 1}}]
)
async def test_another_principal_is_decided_anew(principal: dict[str, Any]) -> None:
    gate = ToolsGate(engine := CountingEngine(HIDE, EFFECTS))
    registry = registry_of({"name": "a", "effect": "write"})
    assert await shown(gate, ["a"], registry) == []
    assert await shown(gate, ["a"], registry, **principal) == (["a"] if "roles" in principal else [])
    assert len(engine.asked) == 2


async def test_other_tools_are_decided_anew() -> None:
    gate = ToolsGate(engine := CountingEngine(HIDE, EFFECTS))
    registry = registry_of({"name": "a", "effect": "read"}, {"name": "b", "effect": "read"})
    assert await shown(gate, ["a"], registry) == ["a"]
    assert await shown(gate, ["a", "b"], registry) == ["a", "b"]
    assert await shown(gate, ["b", "a"], registry) == ["b", "a"]
    assert len(engine.asked) == 3


async def test_another_description_of_a_tool_is_decided_anew() -> None:
    gate = ToolsGate(CountingEngine(HIDE, EFFECTS))
    for effect, left in [("read", ["a"]), ("write", []), ("read", ["a"]), ("destructive", [])] * 20:
        assert await shown(gate, ["a"], registry_of({"name": "a", "effect": effect})) == left


async def test_other_policies_are_asked_anew() -> None:
    gate = ToolsGate(engine := CountingEngine(HIDE, EFFECTS))
    registry = registry_of({"name": "a", "effect": "write"})
    assert await shown(gate, ["a"], registry) == []
    await engine.replace(PolicySet.of(HIDE, {"effects": {"support": ["write"]}}))
    assert await shown(gate, ["a"], registry) == ["a"]
    await engine.replace(PolicySet.of({}))
    assert await shown(gate, ["a"], registry) == ["a"]
    assert len(engine.asked) == 2
    await engine.close()


@pytest.mark.parametrize(
    "condition", ["input.time", "input[data.x]", "time.now_ns() > 0", "rand.intn(input.model, 9)"]
)
async def test_what_depends_on_more_is_asked_each_time(condition: str) -> None:
    gate = ToolsGate(engine := hiding(condition))
    await shown(gate, ["a"])
    await shown(gate, ["a"])
    assert len(engine.asked) == 2


async def test_a_decision_on_the_history_is_asked_again_when_it_grows() -> None:
    gate = ToolsGate(engine := hiding("input.history.counts.fetch > 1"))
    call = [{"call": {"id": "c", "name": "fetch"}}, {"result": {"id": "c", "content": "x"}}]
    for steps, left in [(call, ["a", "b"]), (call, ["a", "b"]), (call * 2, ["b"]), (call * 2, ["b"])]:
        request = request_of(steps, ["a", "b"])
        assert list((await gate.admit(request, situation_of(request))).tools) == left
    assert len(engine.asked) == 2


async def test_what_has_no_one_form_is_asked_each_time() -> None:
    gate = ToolsGate(engine := CountingEngine(HIDE, EFFECTS))
    for _ in range(2):
        await shown(gate, ["a"], claims={"number": 10**30})
    assert len(engine.asked) == 2


class Stubborn(ChatCodec):
    """A codec that cannot take out what it is asked to."""

    def without_tools(self, request: Request, functions: Any, hosted: Any) -> Request:
        return request


async def test_what_cannot_be_taken_out_is_not_sent() -> None:
    strip = 'package callgate.tools\n\ndecision := {"hosted": {"plugins": "strip"}}\n'
    request = Stubborn().read(request_of(tools=["a"], plugins=[]).raw)
    for rule in (strip, hiding_rule("true")):
        with pytest.raises(Refused) as caught:
            await ToolsGate(CountingEngine({"tools.rego": rule})).admit(request, situation_of(request))
        assert caught.value.code == "request_denied"


REQUEST = """package callgate.request

default decision := {"effect": "allow"}

decision := {"effect": "deny"} if {
	input.model == "m"
	count(input.hosted_tools) > 0
	input.hosted_tools[0].label != ""
}
"""


DENY = """package callgate.tools

decision := {"hosted": {tool.type: "deny" | some tool in input.hosted_tools; tool.label == "plugins"}}
"""


@pytest.mark.parametrize(("kind", "module"), [(RequestGate, REQUEST), (ToolsGate, DENY)])
async def test_hosted_tools_are_told_apart(kind: Any, module: str) -> None:
    gate = kind(engine := CountingEngine({"module.rego": module}))
    plain = request_of(tools=["a"])
    labelled = request_of(tools=["a"], plugins=[])
    for _ in range(2):
        assert await gate.admit(plain, situation_of(plain)) is plain
        with pytest.raises(Refused):
            await gate.admit(labelled, situation_of(labelled))
    assert len(engine.asked) == 2


async def test_a_rule_that_fails_refuses_every_time() -> None:
    failing = (
        'package callgate.request\n\ndecision := object.get({"effect": "allow"}, lower(input.protocol), 0)\n'
    )
    tools = 'package callgate.tools\n\ndecision := {"hide": lower(input.model)}\n'
    engine = CountingEngine({"request.rego": failing, "tools.rego": tools})
    request = request_of(tools=["a"])
    for gate in (RequestGate(engine), ToolsGate(engine), RequestGate(engine)):
        with pytest.raises(Refused) as caught:
            await gate.admit(request, situation_of(request))
        assert caught.value.status == 503
        assert "rego" not in caught.value.message
