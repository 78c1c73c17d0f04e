"""Batches against real clients: they run the calls that may run, whether they know the wrapper or not."""

from __future__ import annotations

import orjson
import pytest

from tests.clients.cases import Case
from tests.clients.python_agents import CLIENTS, tools
from tests.clients.test_node import PROGRAMS, run
from tests.http.conftest import Serve
from tests.http.harness import Callgate

USES = [
    {"recipient_name": "functions.get_user", "parameters": {"id": 7}},
    {"recipient_name": "functions.drop_table", "parameters": {"id": 7}},
    {"recipient_name": "functions.get_user", "parameters": {"id": 8}},
]


def conversation(name: str, told: dict[str, str]) -> Case:
    """A turn that is one wrapper, and what the provider must be told of it before it goes on."""
    wrapper = {"name": name, "id": "call_1", "arguments": {"tool_uses": USES}}
    turns = [{"calls": [wrapper]}, {"text": "Both are Ann.", "expect": {"tool_results": told}}]
    return Case("batch", turns, ["get_user 7", "get_user 8"], "Both are Ann.")


CHAT = conversation(
    "multi_tool_use.parallel", {"call_1_0": "Ann", "call_1_1": "not allowed", "call_1_2": "Ann"}
)
# It sends the calls as ones of their own, numbered as it got them.
RESPONSES = conversation("parallel", {"call_1_0": "Ann", "call_1_1": "Ann", "call_1_2": "not allowed"})
STREAM_OR_BODY = pytest.mark.parametrize("way", ["stream", "body"])


async def check(callgate: Callgate) -> None:
    effects = [record["effect"] for record in await callgate.records("decision")]
    assert effects == ["forward", "settle", "forward"]


@STREAM_OR_BODY
@pytest.mark.parametrize("client", [name for name in CLIENTS if name.endswith("chat")])
@pytest.mark.filterwarnings("ignore")
async def test_python_clients_run_the_calls_of_a_batch(serve: Serve, client: str, way: str) -> None:
    callgate = await serve(CHAT.script)
    executed: list[str] = []
    text = await CLIENTS[client](callgate.url, CHAT.name, tools(executed), way == "stream")
    assert (sorted(executed), text) == (CHAT.executed, CHAT.text)
    await check(callgate)


@pytest.mark.timeout(300)
@STREAM_OR_BODY
@pytest.mark.parametrize(
    ("client", "wire", "case"),
    [("openai", "chat", CHAT), ("ai", "chat", CHAT), ("ai", "responses", RESPONSES)],
)
async def test_node_clients_run_the_calls_of_a_batch(
    serve: Serve, node: str, client: str, wire: str, case: Case, way: str
) -> None:
    callgate = await serve(case.script)
    command = [node, str(PROGRAMS / f"{client}.mjs"), wire, way]
    names = orjson.dumps([case.name]).decode()
    printed = await run(command, {"CALLGATE_URL": callgate.url, "CALLGATE_CASES": names})
    assert orjson.loads(printed) == {"case": case.name, "executed": case.executed, "text": case.text}
    await check(callgate)
