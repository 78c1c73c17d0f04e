"""The cache inside exchanges, on every protocol: applications that run calls, and a provider that asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import pytest

from proxy.ports import Unavailable
from proxy.stores.memory import MemoryStore
from tests.core.harness import Outcome, World, run
from tests.core.protocols import PROTOCOLS
from tests.gates.histories import HISTORIES

READ = {
    "name": "get_user",
    "effect": "read",
    "labels": ["untrusted"],
    "cache": {"ttl_s": 60, "tags": ["users"]},
}
SHARED = {"name": "get_rate", "effect": "read", "cache": {"ttl_s": 60, "scope": "global"}}
WRITE = {"name": "rename", "effect": "write", "invalidates": ["users"]}
ASK = {"calls": [{"name": "get_user", "arguments": {"id": 42}, "id": "call_u1"}]}
AGAIN = {"calls": [{"name": "get_user", "arguments": {"id": 42}, "id": "call_u2"}]}

EVERYWHERE = [
    pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"]),
    pytest.mark.parametrize("protocol", list(PROTOCOLS)),
]


def everywhere(test: Callable[..., Any]) -> Callable[..., Any]:
    for mark in EVERYWHERE:
        test = mark(test)
    return test


class Client:
    """An application: sends the conversation as it knows it, runs what it is given, and sends again."""

    def __init__(self, protocol: str, stream: bool, world: World | None = None, **case: Any) -> None:
        self.protocol, self.stream, self.world = protocol, stream, world or World()
        self.case = {"registry": [READ, SHARED, WRITE], **case}
        self.ran: list[str] = []
        self.outcomes: list[Outcome] = []

    async def ask(self, upstream: Sequence[Any], question: str = "Do it.") -> str:
        """Ask one question in a conversation of its own; the text that answers it."""
        spoken, steps = PROTOCOLS[self.protocol], [{"user": question}]
        tools = {"tools": ["get_user", "get_rate", "rename"]}
        for _ in range(10):
            body = spoken.request(tools, self.stream) | HISTORIES[self.protocol](steps)
            case = {**self.case, "upstream": upstream}
            outcome = await run(case, self.stream, world=self.world, body=body, protocol=self.protocol)
            self.outcomes.append(outcome)
            answer = spoken.read(outcome.client.data, self.stream)
            assert answer.error is None
            for call in answer.first.calls:
                self.ran.append(call["name"])
                arguments = orjson.loads(call["arguments"])
                steps.append({"call": {"id": call["id"], "name": call["name"], "arguments": arguments}})
                steps.append({"result": {"id": call["id"], "content": f"{call['name']} no. {len(self.ran)}"}})
            if not answer.first.calls:
                return answer.first.text
        raise AssertionError("it goes on and on")

    def verdicts(self) -> list[tuple[str, str]]:
        return [(r.tool, r.verdict) for outcome in self.outcomes for r in outcome.decisions]


def told(call_id: str, part: str, text: str = "Done.") -> Mapping[str, Any]:
    return {"text": text, "expect": {"tool_results": {call_id: part}}}


@everywhere
async def test_the_second_call_is_answered_inside_the_exchange(protocol: str, stream: bool) -> None:
    client = Client(protocol, stream)
    await client.ask([ASK, {"text": "Done."}], "First.")
    assert await client.ask([AGAIN, told("call_u2", "get_user no. 1")], "Second.") == "Done."
    assert client.ran == ["get_user"]
    assert client.verdicts() == [("get_user", "Allow"), ("get_user", "Answer")]
    record = client.outcomes[-1].decisions[0]
    assert (record.effect, record.guard, record.arguments_forwarded) == ("settle", "cache", None)
    assert record.facts["cache"] == {"hit": True, "age_s": 0.0}
    assert b"call_u2" not in client.outcomes[-1].client.data
    assert (client.outcomes[-1].exchange.rounds, client.outcomes[-1].exchange.calls) == (2, 1)


@everywhere
async def test_of_a_mixed_turn_the_client_runs_one_and_the_model_sees_both(
    protocol: str, stream: bool
) -> None:
    client = Client(protocol, stream)
    await client.ask([ASK, {"text": "Done."}], "First.")
    both = {"calls": [*AGAIN["calls"], {"name": "get_rate", "arguments": {}, "id": "call_rate"}]}
    results = {"call_u2": "get_user no. 1", "call_rate": "get_rate no. 2"}
    end = {"text": "Done.", "expect": {"tool_results": results}}
    assert await client.ask([both, end], "Second.") == "Done."
    assert client.ran == ["get_user", "get_rate"]
    assert client.outcomes[-2].exchange.outcome == "mixed"
    assert client.outcomes[-1].exchange.restored == 1


@everywhere
async def test_a_write_in_between_sends_the_read_to_the_application_again(
    protocol: str, stream: bool
) -> None:
    client = Client(protocol, stream)
    rename = {"calls": [{"name": "rename", "arguments": {"id": 42}, "id": "call_w"}]}
    await client.ask([ASK, rename, AGAIN, told("call_u2", "get_user no. 3")])
    assert client.ran == ["get_user", "rename", "get_user"]


@everywhere
async def test_nothing_is_answered_that_policy_denies(protocol: str, stream: bool) -> None:
    client = Client(protocol, stream)
    await client.ask([ASK, {"text": "Done."}], "First.")
    denying = Client(protocol, stream, client.world, policy={"get_user": {"effect": "deny"}})
    await denying.ask([AGAIN, told("call_u2", "denied")], "Second.")
    assert denying.verdicts() == [("get_user", "Deny")]
    off = {"get_user": {"effect": "allow", "obligations": {"cache_ttl_s": 0}}}
    fresh = Client(protocol, stream, client.world, policy=off)
    await fresh.ask([AGAIN, {"text": "Done."}], "Third.")
    assert fresh.ran == ["get_user"]


@everywhere
async def test_another_principal_asks_the_application(protocol: str, stream: bool) -> None:
    client = Client(protocol, stream)
    rate = {"calls": [{"name": "get_rate", "arguments": {}, "id": "call_rate"}]}
    await client.ask([ASK, rate, {"text": "Done."}], "First.")
    bob = Client(protocol, stream, client.world, principal={"id": "bob"})
    await bob.ask([AGAIN, rate, told("call_rate", "get_rate no. 2")], "First.")
    assert bob.ran == ["get_user"]  # the rate is for all


@everywhere
async def test_a_kept_result_is_shown_as_it_may_be_seen_now(protocol: str, stream: bool) -> None:
    client = Client(protocol, stream)
    await client.ask([ASK, {"text": "Done."}], "First.")
    strict = {"effect": "redact", "patterns": ["no\\. [0-9]+"], "labels": ["secret"]}
    later = Client(protocol, stream, client.world, result_policy={"get_user": strict})
    rate = {"calls": [{"name": "get_rate", "arguments": {}, "id": "call_rate"}]}
    await later.ask([AGAIN, rate, {"text": "Done."}], "Second.")
    sent = later.outcomes[0].upstream.asks[-1].body
    assert b"get_user" in sent
    assert b"no. 1" not in sent
    seen = [
        given for given in later.outcomes[0].engine.inputs if given.get("call", {}).get("name") == "get_rate"
    ]
    assert seen[0]["history"]["labels"] == ["secret", "untrusted"]
    assert [call["name"] for call in seen[0]["history"]["calls"]] == ["get_user"]


@everywhere
async def test_a_hint_is_remembered_in_the_next_request(protocol: str, stream: bool) -> None:
    client = Client(protocol, stream, guards={"loop": {"max_identical": 1}})
    rate = {"name": "get_rate", "arguments": {}, "id": "call_rate"}
    third = {"calls": [{**AGAIN["calls"][0], "id": "call_u3"}]}
    upstream = [ASK, {"calls": [*AGAIN["calls"], rate]}, third, told("call_u3", "nothing new", "This is it.")]
    assert await client.ask(upstream) == "This is it."
    assert client.ran == ["get_user", "get_rate"]
    said = [verdict for _, verdict in client.verdicts()]
    assert said == ["Allow", "Reask", "Allow", "Break"]


class Down(MemoryStore):
    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        raise Unavailable("the store is down")


@everywhere
async def test_a_failing_cache_is_a_miss(protocol: str, stream: bool) -> None:
    client = Client(protocol, stream, World(results=Down()))
    assert await client.ask([ASK, AGAIN, {"text": "Done."}]) == "Done."
    assert client.ran == ["get_user", "get_user"]


@everywhere
async def test_answers_do_not_use_up_the_models_rounds(protocol: str, stream: bool) -> None:
    client = Client(protocol, stream, World(max_rounds=2))
    reads = [
        {"calls": [{"name": "get_user", "arguments": {"id": n}, "id": f"call_{n}"}]} for n in (1, 2, 3, 4)
    ]
    await client.ask([*reads, {"text": "Done."}], "First.")
    assert await client.ask([*reads, told("call_4", "get_user no. 4")], "Second.") == "Done."
    assert [verdict for _, verdict in client.verdicts()[4:]] == ["Answer", "Answer", "Allow", "Answer"]
    assert client.outcomes[-1].exchange.outcome == "answered"


IMAGE = {
    "chat": [{"type": "text", "text": "seen"}, {"type": "image_url", "image_url": {"url": "data:,"}}],
    "messages": [{"type": "text", "text": "seen"}, {"type": "image", "source": {"type": "url", "url": "x:"}}],
    "responses": [{"type": "input_text", "text": "seen"}, {"type": "input_image", "image_url": "data:,"}],
}


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_codecs_say_where_a_result_is_more_than_text(protocol: str) -> None:
    steps = [{"user": "Look."}, {"call": {"id": "c", "name": "look"}}]
    for content, partial in ((IMAGE[protocol], True), (IMAGE[protocol][:1], False), ("seen", False)):
        said = [*steps, {"result": {"id": "c", "content": content}}]
        body = PROTOCOLS[protocol].request({}, False) | HISTORIES[protocol](said)
        (past,) = PROTOCOLS[protocol].codec.read(orjson.dumps(body)).history.calls
        assert (past.result, past.partial, past.failed) == ("seen", partial, False)


def test_messages_mark_failures() -> None:
    said = [
        {"user": "Look."},
        {"call": {"id": "c", "name": "look"}},
        {"result": {"id": "c", "content": "no"}},
    ]
    body = PROTOCOLS["messages"].request({}, False) | HISTORIES["messages"](said)
    body["messages"][-1]["content"][0]["is_error"] = True
    (past,) = PROTOCOLS["messages"].codec.read(orjson.dumps(body)).history.calls
    assert past.failed
