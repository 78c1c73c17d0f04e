"""What could be mistaken for an approval, and what arrives where nobody expects it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry

from proxy.approvals import Approvals
from proxy.http.admin import admin_app
from proxy.record import TicketRecord
from proxy.scripted import ScriptedProvider
from proxy.stores.memory import MemoryStore
from tests.approvals.test_approvals import CODE, Conversation, released
from tests.core.harness import World
from tests.http.harness import DROP, TOOLS, RawAnswer, ask, http, scripted, start, talk


@pytest.mark.parametrize(
    "words",
    [
        "Do not approve {}.",
        "don't approve {}",
        "I can’t really approve {}",
        "NEVER approve {}",
        "You cannot\napprove {}",
    ],
)
async def test_a_negated_approval_is_none(words: str) -> None:
    conversation = Conversation(False)
    code = await conversation.held()
    _, answer = await conversation.say(words.format(code)).ask()
    assert released(answer) == []
    _, answer = await conversation.say(f"It is not urgent. Approve {code}").ask()
    assert len(released(answer)) == 1, "the ticket stayed"


async def test_what_is_declined_stays_declined_when_an_approval_is_ruled_out_after_it() -> None:
    conversation = Conversation(False)
    code = await conversation.held()
    outcome, answer = await conversation.say(f"decline {code}, and never approve {code}").ask()
    assert released(answer) == []
    assert [r.event for r in outcome.records if isinstance(r, TicketRecord)] == ["declined"]


async def test_a_ticket_is_not_used_up_by_an_approval_in_another_protocol(tmp_path: Any) -> None:
    policy = tmp_path / "confirm.rego"
    policy.write_text('package callgate.call\n\ndecision := {"effect": "confirm"}\n')
    turns = {"calls": [DROP]}, {"text": "As you wish."}
    async with ScriptedProvider([scripted(*turns)]) as provider:
        callgate = await start(provider, tmp_path / "callgate", policies={"paths": [str(policy)]})

        async def post(route: str, body: dict[str, Any]) -> RawAnswer:
            headers = ("Content-Type: application/json", "Authorization: Bearer sk-user")
            raw = http("POST", f"/v1/{route}", orjson.dumps(body), headers)
            return RawAnswer(await talk(callgate.port, raw))

        try:
            held = orjson.loads((await post("chat/completions", ask())).body)
            said = held["choices"][0]["message"]["content"]
            found = CODE.search(said)
            assert found
            messages = [
                {"role": "user", "content": "go"},
                {"role": "assistant", "content": said},
                {"role": "user", "content": f"approve {found[1]}"},
            ]
            elsewhere = await post("responses", {"model": "m", "input": messages})
            assert (elsewhere.status, b"drop_table" in elsewhere.body) == (200, False)
            here = await post("chat/completions", {"model": "m", "messages": messages, "tools": TOOLS})
            (call,) = orjson.loads(here.body)["choices"][0]["message"]["tool_calls"]
            assert call["id"] == "call_drop"
        finally:
            await callgate.stop()


async def test_an_admin_token_of_bytes_that_are_no_text_is_a_wrong_one() -> None:
    admin = admin_app(CollectorRegistry(), tuple, Approvals(MemoryStore()), "t0ken")
    async with TestServer(admin) as server:
        port = server.port
        assert port
        raw = http("GET", "/v1/tickets", headers=("Authorization: Bearer \xff\xfe",))
        answer = RawAnswer(await talk(port, raw))
    assert (answer.status, answer.error["code"]) == (401, "unidentified")


class DeclinedMeanwhile(MemoryStore):
    """A store where an operator declines a ticket just before the user's approval takes it."""

    async def take(self, key: str) -> bytes | None:
        if key.startswith("ticket:"):
            assert await Approvals(self).decide(key.removeprefix("ticket:"), approve=False) == "declined"
        return await super().take(key)


async def test_an_operators_decline_stands_against_an_approval_on_its_way() -> None:
    conversation = Conversation(False, World(DeclinedMeanwhile()))
    code = await conversation.held()
    outcome, answer = await conversation.say(f"approve {code}").ask()
    assert released(answer) == []
    told = [(r.event, r.by) for r in outcome.records if isinstance(r, TicketRecord)]
    assert told == [("declined", "operator")]
