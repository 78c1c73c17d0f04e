"""Two replicas of Callgate with one Redis: what one keeps the other finds, and what is once stays once."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from proxy.scripted import ScriptedProvider
from tests.http.harness import DROP, GET, Callgate, ask, read_audit, scripted, start
from tests.stores import servers
from tests.stores.servers import Server

POLICY = """
package callgate.call

decision := {"effect": "deny", "reasons": ["Not allowed."]} if {
	startswith(input.call.name, "drop")
} else := {"effect": "allow"} if {
	input.approval.approved
} else := {"effect": "confirm"} if {
	startswith(input.call.name, "delete")
} else := {"effect": "allow"}
"""
DELETE: dict[str, Any] = {"name": "delete_user", "arguments": {"id": 42}, "id": "call_delete"}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("get_user", "drop_table", "delete_user", "count_me", "read_page")
]
READ_PAGE = """
name: read_page
effect: read
description: Reads a page.
parameters: {type: object}
cache: {ttl_s: 600, scope: principal}
"""
TIMEOUT_S = 2.0


@dataclass
class Replicas:
    """Some replicas behind one provider, each asked in its turn."""

    gates: list[Callgate]
    provider: ScriptedProvider
    server: Server

    def __post_init__(self) -> None:
        self._turns = itertools.cycle(self.gates)
        self.client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def post(self, messages: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        gate = next(self._turns)
        body = ask(messages=messages, tools=TOOLS)
        async with self.client.post(f"{gate.url}/chat/completions", json=body) as answer:
            return answer.status, orjson.loads(await answer.read())

    async def say(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        status, answer = await self.post(messages)
        assert status == 200, answer
        message: dict[str, Any] = answer["choices"][0]["message"]
        return message

    def asked(self) -> list[list[dict[str, Any]]]:
        """The messages of every request that the provider got."""
        return [request.body["messages"] for request in self.provider.requests]

    async def stop(self) -> None:
        await self.client.close()
        for gate in self.gates:
            await gate.stop()


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with servers.server() as server:
        yield server


@pytest.fixture
async def two(shared: Server, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Replicas]:
    if shared.process is None:
        shared.start()
    policy = tmp_path / "confirm.rego"
    policy.write_text(POLICY)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "read_page.yaml").write_text(READ_PAGE)
    async with ScriptedProvider([scripted(*request.param)]) as provider:
        gates = [
            await start(
                provider,
                tmp_path / name,
                policies={"paths": [str(policy)]},
                tools={"paths": [str(tools)]},
                guards={"limits": {"tools": {"count_*": {"per_day": 3}}}},
                store={
                    "kind": "redis",
                    "url": shared.url,
                    "prefix": f"{tmp_path.name}:",
                    "timeout_s": TIMEOUT_S,
                },
            )
            for name in ("one", "two")
        ]
        replicas = Replicas(gates, provider, shared)
        try:
            yield replicas
        finally:
            shared.resume() if shared.process else None
            await replicas.stop()


USER = {"role": "user", "content": "go"}
MIXED = [{"calls": [DROP, GET]}, {"text": "Done."}]
COUNTED = [{"calls": [{"name": "count_me", "arguments": {}}]}, {"text": "Refused."}]
CACHED = [{"calls": [{"name": "read_page", "arguments": {}, "id": "call_read"}]}, {"text": "Read."}]
CONFIRMED = [{"calls": [DELETE]}, {"text": "Noted."}, {"text": "Later."}]


def result(call: dict[str, Any]) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call["id"], "content": "found"}


async def question(replicas: Replicas) -> tuple[dict[str, Any], str]:
    """The question that stands for the held call, and its code."""
    message = await replicas.say([USER])
    assert not message.get("tool_calls")
    (code,) = re.findall(r'"approve (\w{6})"', message["content"])
    return message, code


@pytest.mark.parametrize("two", [MIXED], indirect=True, ids=["mixed"])
async def test_what_one_replica_settled_the_other_restores(two: Replicas) -> None:
    message = await two.say([USER])
    (call,) = message["tool_calls"]
    assert call["function"]["name"] == "get_user"
    assert (await two.say([USER, message, result(call)]))["content"] == "Done."
    whole = two.asked()[1]
    assert [c["id"] for c in whole[1]["tool_calls"]] == ["call_drop", "call_get"]
    assert {m["tool_call_id"] for m in whole if m["role"] == "tool"} == {"call_drop", "call_get"}


@pytest.mark.parametrize("two", [CONFIRMED], indirect=True, ids=["confirmed"])
async def test_of_a_hundred_approvals_one_releases_the_call(two: Replicas, tmp_path: Path) -> None:
    asked, code = await question(two)
    follow_up = [USER, asked, {"role": "user", "content": f"approve {code}"}]
    answers = await asyncio.gather(*(two.say(follow_up) for _ in range(100)))
    released = [answer["tool_calls"] for answer in answers if answer.get("tool_calls")]
    assert [[call["id"] for call in calls] for calls in released] == [["call_delete"]]
    assert [a["content"] for a in answers if not a.get("tool_calls")] == ["Noted."] * 99
    assert len(two.asked()) == 1 + 99
    await two.stop()
    forwarded = [
        record
        for name in ("one", "two")
        for record in read_audit(tmp_path / name / "audit", "decision")
        if record["effect"] == "forward"
    ]
    assert len(forwarded) == 1


@pytest.mark.parametrize("two", [CONFIRMED], indirect=True, ids=["confirmed"])
async def test_an_operator_decides_at_either_replica(two: Replicas) -> None:
    asked, code = await question(two)
    one, other = (gate.app.admin_url for gate in two.gates)
    async with two.client.get(f"{other}/v1/tickets") as listed:
        assert [ticket["code"] for ticket in (await listed.json())["tickets"]] == [code]
    approvals = [f"{url}/v1/tickets/{code}/{word}" for url in (one, other) for word in ("approve", "decline")]

    async def decide(url: str) -> int:
        async with two.client.post(url) as answer:
            return answer.status

    statuses = await asyncio.gather(*(decide(url) for url in approvals * 5))
    assert sorted(set(statuses)) == [200, 409]
    won = {
        url.rpartition("/")[2] for url, status in zip(approvals * 5, statuses, strict=True) if status == 200
    }
    assert len(won) == 1
    answer = await two.say([USER, asked, {"role": "user", "content": "well?"}])
    assert bool(answer.get("tool_calls")) == (won == {"approve"})


@pytest.mark.parametrize("two", [COUNTED], indirect=True, ids=["counted"])
async def test_a_limit_is_one_for_both_replicas(two: Replicas) -> None:
    answers = await asyncio.gather(*(two.say([USER]) for _ in range(20)))
    assert sum(bool(answer.get("tool_calls")) for answer in answers) == 3
    assert sum(answer["content"] == "Refused." for answer in answers) == 17


@pytest.mark.parametrize("two", [CACHED], indirect=True, ids=["cached"])
async def test_what_one_replica_learned_the_other_answers(two: Replicas) -> None:
    await _read_once(two)
    assert (await two.say([USER]))["content"] == "Read."
    two.server.kill()
    again = await two.say([USER])
    assert again["tool_calls"][0]["id"] == "call_read"  # a miss: the application is asked


async def _read_once(replicas: Replicas) -> None:
    message = await replicas.say([USER])
    assert message["tool_calls"][0]["id"] == "call_read"
    page = {"role": "tool", "tool_call_id": "call_read", "content": "a page"}
    await replicas.say([USER, message, page])


# -- Redis goes


@pytest.mark.parametrize("two", [CONFIRMED], indirect=True, ids=["confirmed"])
@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_without_redis_nothing_is_held_and_nothing_is_released(two: Replicas, how: str) -> None:
    asked, code = await question(two)
    getattr(two.server, how)()
    began = time.monotonic()
    status, answer = await two.post([USER])
    assert (status, answer["error"]["code"]) == (503, "store_unavailable")
    assert time.monotonic() - began < TIMEOUT_S * 4 + 3
    follow_up = [USER, asked, {"role": "user", "content": f"approve {code}"}]
    assert (await two.say(follow_up))["content"] == "Noted."
    async with two.client.get(f"{two.gates[0].app.admin_url}/v1/tickets") as listed:
        assert listed.status == 503


@pytest.mark.parametrize("two", [COUNTED], indirect=True, ids=["counted"])
async def test_without_redis_what_cannot_be_counted_is_denied(two: Replicas) -> None:
    assert (await two.say([USER]))["tool_calls"]
    two.server.kill()
    for _ in range(3):
        assert (await two.say([USER]))["content"] == "Refused."
    two.server.start()
    async with asyncio.timeout(20):
        while not (await two.say([USER])).get("tool_calls"):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("two", [CONFIRMED], indirect=True, ids=["confirmed"])
async def test_when_redis_wakes_the_ticket_can_still_be_approved(two: Replicas) -> None:
    asked, code = await question(two)
    follow_up = [USER, asked, {"role": "user", "content": f"approve {code}"}]
    two.server.pause()
    for _ in range(8):
        assert (await two.say(follow_up))["content"] == "Noted."
    two.server.resume()
    async with asyncio.timeout(20):
        while not (answer := await two.say(follow_up)).get("tool_calls"):
            await asyncio.sleep(0.05)
    assert answer["tool_calls"][0]["id"] == "call_delete"


@pytest.mark.parametrize("two", [MIXED], indirect=True, ids=["mixed"])
async def test_without_redis_a_request_goes_on_as_the_client_sent_it(two: Replicas) -> None:
    message = await two.say([USER])
    sent = [USER, message, result(message["tool_calls"][0])]
    two.server.kill()
    assert (await two.say(sent))["content"] == "Done."
    assert two.asked()[1] == sent
    assert (await two.say([USER]))["tool_calls"][0]["id"] == "call_get"  # judged and forwarded, not kept
    two.server.start()
    async with asyncio.timeout(20):
        while True:
            message = await two.say([USER])
            await two.say([USER, message, result(message["tool_calls"][0])])
            if len(two.asked()[-1]) > len(sent):
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("two", [MIXED], indirect=True, ids=["mixed"])
async def test_readiness_waits_for_redis_once(two: Replicas, tmp_path: Path) -> None:
    async def ready(gate: Callgate) -> dict[str, Any]:
        async with two.client.get(f"{gate.app.admin_url}/readyz") as answer:
            body: dict[str, Any] = await answer.json()
            assert (answer.status == 200) == (not body["faults"])
            return body

    async def until_ready(gate: Callgate) -> None:
        async with asyncio.timeout(20):
            while (await ready(gate))["faults"]:
                await asyncio.sleep(0.02)

    await until_ready(two.gates[0])
    two.server.kill()
    store = {"kind": "redis", "url": two.server.url, "timeout_s": TIMEOUT_S}
    late = await start(two.provider, tmp_path / "late", store=store)
    assert f"127.0.0.1:{two.server.port}" in (await ready(late))["faults"][0]
    assert (await ready(two.gates[0]))["status"] == "ready"
    two.server.start()
    await until_ready(late)
    await late.stop()
