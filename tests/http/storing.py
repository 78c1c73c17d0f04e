"""What the tests of stored objects share: words that must never come back, and requests below a route."""

from __future__ import annotations

from typing import Any

import orjson

from tests.http.harness import DROP, TOOLS, Callgate, RawAnswer, http, talk

Json = dict[str, Any]

OFFERED: list[Any] = [{"type": "function", **tool["function"]} for tool in TOOLS]
AGAIN: Json = DROP | {"id": "call_again"}
BATCH: Json = {
    "id": "call_both",
    "name": "parallel",
    "arguments": {
        "tool_uses": [
            {"recipient_name": "functions.drop_table", "parameters": {"id": 7}},
            {"recipient_name": "functions.get_user", "parameters": {"id": 7}},
        ]
    },
}
"""Several calls in one, as some models write them: one of them is denied."""
SECRETS = ("drop_table", "call_drop", "call_again", "call_wrong", "is not allowed", "No more tool calls")
"""What a client that is denied ``drop_table`` is never told."""


def secrets_in(whole: Json) -> list[str]:
    """The secrets that an object tells, beside the tools that the client itself offered."""
    words = orjson.dumps({key: value for key, value in whole.items() if key != "tools"}).decode()
    return [word for word in SECRETS if word in words]


async def ask(
    callgate: Callgate, method: str, route: str, body: Json | None = None, key: str = "sk-user"
) -> RawAnswer:
    """A plain request below ``/v1``."""
    headers = (f"Authorization: Bearer {key}", "Content-Type: application/json")
    raw = orjson.dumps(body) if body is not None else b""
    return RawAnswer(await talk(callgate.port, http(method, f"/v1{route}", raw, headers)))
