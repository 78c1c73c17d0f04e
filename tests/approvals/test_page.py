"""docs/approvals.md: what it shows is what operators and users get."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from proxy.approvals import Approvals, word_question
from proxy.config import Settings
from proxy.http.admin import admin_app
from proxy.model import ToolCall
from proxy.stores.memory import MemoryStore
from proxy.tools import ToolSpec

PAGE = (Path(__file__).parents[2] / "docs/approvals.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```(\w+ \w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
CALL = ToolCall.parse("call_1", "delete_user", '{"user_id": 42}')
SPEC = ToolSpec.model_validate(
    {
        "name": "delete_user",
        "effect": "destructive",
        "confirm": {"title": "Delete a user", "show": ["user_id"]},
    }
)


def test_the_question_is_worded_as_it_is_shown() -> None:
    assert word_question("NM4XG2", [(CALL, SPEC)], ("code", "yes")) == BLOCKS["text question"].strip()


def test_the_settings_are_as_they_are_told() -> None:
    settings = Settings().approvals
    assert (settings.accept, settings.ttl_s, settings.wait_s) == (("code", "yes"), 15 * 60, 0)


async def test_the_operators_requests_are_answered_as_they_are_shown() -> None:
    approvals = Approvals(MemoryStore())
    asked = re.findall(r"^curl (?:-X (POST) )?http://127.0.0.1:8788(\S+) -H", PAGE, re.MULTILINE)
    assert len(asked) == 3
    tickets, approve, decline = (path for _, path in asked)
    shown: dict[str, Any] = json.loads(BLOCKS["json tickets"])
    admin = admin_app(CollectorRegistry(), tuple, approvals, "t0ken")
    async with TestClient(TestServer(admin), headers={"authorization": "Bearer t0ken"}) as operator:
        ticket = await approvals.open(
            ("k", "ann"), "cc05b9b011e0967c", "chat", shown["tickets"][0]["time"], [(CALL, SPEC)], b""
        )
        answer = await operator.get(tickets)
        given = json.loads((await answer.text()).replace(ticket.code, "NM4XG2"))
        assert given == shown
        answer = await operator.post(approve.replace("NM4XG2", ticket.code))
        given = json.loads((await answer.text()).replace(ticket.code, "NM4XG2"))
        assert given == json.loads(BLOCKS["json decided"])
        answer = await operator.post(decline.replace("NM4XG2", ticket.code))
        assert (answer.status, (await answer.json())["error"]["code"]) == (409, "already_decided")
        answer = await operator.post(approve.replace("NM4XG2", "ZZZZZZ"))
        assert (answer.status, (await answer.json())["error"]["code"]) == (404, "no_such_ticket")
