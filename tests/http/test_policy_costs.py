"""Policies that explode, over HTTP: who asks is denied in time, and everybody else is served."""

from __future__ import annotations

import asyncio
import resource
import time
from typing import Any

import aiohttp
import pytest

from tests.http.conftest import Serve
from tests.http.harness import ask, scripted

TIMEOUT_S = 1.0

ALLOW = 'decision := {"effect": "allow"} if '
# Each explodes on the arguments of the second, not on those of the first.
POLICIES: dict[str, str] = {
    "a range": ALLOW + "count(numbers.range(1, input.call.arguments.id)) > 0",
    "a product": ALLOW
    + "count([1 | some a in n; some b in n; some c in n; a + b < c]) >= 0\n\nn := numbers.range(1, most)\n\n"
    + "most := 3000 if input.call.arguments.id > 7 else := 3",
    "a walk": ALLOW
    + "count([1 | walk(deep, [a, _]); walk(deep, [b, _]); walk(deep, [_, c]); a == b; b == c]) >= 0\n\n"
    + "deep := [[n | some n in numbers.range(1, 2000)]] if input.call.arguments.id > 7 else := []",
    "memory": ALLOW
    + 'count(concat(",", [sprintf("%s%d", [text, n]) | some n in numbers.range(1, most)])) > 0\n\n'
    + 'text := concat("", [sprintf("%v", [n]) | some n in numbers.range(1, 20000)])\n\n'
    + "most := 100000 if input.call.arguments.id > 7 else := 3",
}
GOOD = {"name": "get_user", "arguments": {"id": 7}, "id": "call_good"}
BAD = {"name": "get_user", "arguments": {"id": 10**12}, "id": "call_bad"}


async def asked(session: aiohttp.ClientSession, url: str, model: str) -> tuple[bytes, float]:
    """What the client is answered, and after how many seconds."""
    begun = time.perf_counter()
    async with session.post(url + "/chat/completions", json=ask(model=model)) as answer:
        assert answer.status == 200
        return await answer.read(), time.perf_counter() - begun


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_policy_that_explodes_denies_in_time_and_keeps_nobody_waiting(
    serve: Serve, session: aiohttp.ClientSession, policy: str
) -> None:
    scripts: list[Any] = [
        scripted({"text": "Hello."}, model="text"),
        scripted({"calls": [GOOD]}, model="good"),
        scripted({"calls": [BAD]}, {"text": "I may not."}, model="bad"),
    ]
    callgate = await serve(*scripts, guards={"policy": {"timeout_s": TIMEOUT_S}}, tools={"paths": []})
    rego = callgate.audit.parent / "policy.rego"
    rego.write_text(f"package callgate.call\n\n{POLICIES[policy]}\n")
    engine: Any = callgate.app.engine
    async with asyncio.timeout(20):
        while "callgate.call" not in engine.asked_aside:
            await asyncio.sleep(0.02)
    assert b"call_good" in (await asked(session, callgate.url, "good"))[0]
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    bad = [asyncio.ensure_future(asked(session, callgate.url, "bad")) for _ in range(2)]
    while not all(task.done() for task in bad):
        said, took_s = await asked(session, callgate.url, "text")
        assert b"Hello." in said
        assert took_s < TIMEOUT_S / 2
    for task in bad:
        said, took_s = await task
        assert b"I may not." in said
        assert b"call_bad" not in said
        assert took_s < TIMEOUT_S + 1.0

    # Whoever was killed is replaced.
    async with asyncio.timeout(20):
        while b"call_good" not in (await asked(session, callgate.url, "good"))[0]:
            await asyncio.sleep(0.1)
    async with session.get(callgate.app.admin_url + "/metrics") as answer:
        told = await answer.text()
    counted = 'callgate_policy_decisions_aside_total{outcome="%s",package="callgate.call"}'
    assert any(counted % outcome in told for outcome in ("ended", "late"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 * 1024
    decided = {(d["gen_ai.tool.call.id"], d["verdict"]) for d in await callgate.records("decision")}
    assert {("call_bad", "Deny"), ("call_good", "Allow")} <= decided
    assert ("call_bad", "Allow") not in decided
