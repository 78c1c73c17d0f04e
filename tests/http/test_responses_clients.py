"""Other clients of the Responses API against a real Callgate: each runs what was judged, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.conftest import Serve
from tests.http.harness import DROP, GET, Callgate

CALLS: list[str] = []
KEY = "sk-user"


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


def get_user(id: int) -> str:
    """Look a user up."""
    CALLS.append(f"get_user({id})")
    return "Ann"


def drop_table(id: int) -> str:
    """Drop a table."""
    CALLS.append(f"drop_table({id})")
    return "gone"


async def with_pydantic_ai(callgate: Callgate, stream: bool) -> str:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=callgate.url, api_key=KEY)
    agent = Agent(OpenAIResponsesModel("m", provider=provider), tools=[get_user, drop_table])
    if not stream:
        return str((await agent.run("go")).output)
    async with agent.run_stream("go") as result:
        return str(await result.get_output())


async def with_agents(callgate: Callgate, stream: bool) -> str:
    from agents import Agent, OpenAIResponsesModel, RunConfig, Runner, function_tool
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=callgate.url, api_key=KEY, max_retries=0) as client:
        agent = Agent(
            name="a",
            model=OpenAIResponsesModel("m", client),
            tools=[function_tool(get_user), function_tool(drop_table)],
        )
        quiet = RunConfig(tracing_disabled=True)
        if not stream:
            return str((await Runner.run(agent, "go", run_config=quiet)).final_output)
        result = Runner.run_streamed(agent, "go", run_config=quiet)
        async for _ in result.stream_events():
            pass
        return str(result.final_output)


async def with_langchain(callgate: Callgate, stream: bool) -> str:
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(
        model="m", base_url=callgate.url, api_key=KEY, use_responses_api=True, max_retries=0
    ).bind_tools([get_user, drop_table])
    messages: list[Any] = [HumanMessage("go")]
    for _ in range(4):
        if stream:
            answer: Any = None
            async for chunk in model.astream(messages):
                answer = chunk if answer is None else answer + chunk
        else:
            answer = await model.ainvoke(messages)
        assert isinstance(answer, AIMessage)
        assert not answer.invalid_tool_calls
        messages.append(answer)
        for call in answer.tool_calls:
            result = globals()[call["name"]](**call["args"])
            messages.append(ToolMessage(result, tool_call_id=call["id"]))
        if not answer.tool_calls:
            return str(answer.text)
    raise AssertionError("the model goes on and on")


CLIENTS = {"pydantic-ai": with_pydantic_ai, "agents": with_agents, "langchain": with_langchain}

# What the model does -> the calls that run, and the last text.
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[str], str]] = {
    "allowed": ([{"calls": [GET]}, {"text": "It is Ann."}], ["get_user(7)"], "It is Ann."),
    "reasoning": (
        [{"reasoning": "Hm.", "calls": [GET]}, {"reasoning": "So.", "text": "It is Ann."}],
        ["get_user(7)"],
        "It is Ann.",
    ),
    "mixed": ([{"calls": [DROP, GET]}, {"text": "It is Ann."}], ["get_user(7)"], "It is Ann."),
    "denied": ([{"calls": [DROP]}, {"text": "I may not."}], [], "I may not."),
    "denied, then allowed": (
        [{"reasoning": "Hm.", "calls": [DROP]}, {"reasoning": "So.", "calls": [GET]}, {"text": "It is Ann."}],
        ["get_user(7)"],
        "It is Ann.",
    ),
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.filterwarnings("ignore")
async def test_each_client_runs_what_was_judged(serve: Serve, client: str, name: str, stream: bool) -> None:
    turns, ran, text = CONVERSATIONS[name]
    callgate = await serve(*turns)
    assert await CLIENTS[client](callgate, stream) == text
    assert ran == CALLS
