"""Agents as an application writes them with each Python client; all they know of Callgate is its URL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from agents import Agent as OpenAIAgent
from agents import OpenAIChatCompletionsModel, OpenAIResponsesModel, RunConfig, Runner, function_tool
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI
from pydantic import SecretStr
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.models import openai as pydantic_models
from pydantic_ai.providers.openai import OpenAIProvider

KEY = "sk-user"
MAX_TURNS = 5

Tool = Callable[..., str]
Client = Callable[[str, str, Sequence[Tool], bool], Awaitable[str]]
"""(base URL, model, tools, whether to stream) -> the text that the agent ends with."""


def tools(executed: list[str]) -> list[Tool]:
    """Tools that note what they are run for."""

    def get_user(id: int) -> str:
        """Look a user up."""
        executed.append(f"get_user {id}")
        return "Ann"

    def drop_table(id: int) -> str:
        """Drop a table."""
        executed.append(f"drop_table {id}")
        return "gone"

    return [get_user, drop_table]


async def openai_agents(model_type: Any, url: str, model: str, tools: Sequence[Tool], stream: bool) -> str:
    async with AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        offered: list[Any] = [function_tool(tool) for tool in tools]
        agent = OpenAIAgent(name="a", model=model_type(model, client), tools=offered)
        options: Any = {"run_config": RunConfig(tracing_disabled=True), "max_turns": MAX_TURNS}
        if not stream:
            return str((await Runner.run(agent, "go", **options)).final_output)
        result = Runner.run_streamed(agent, "go", **options)
        async for _ in result.stream_events():
            pass
        return str(result.final_output)


async def pydantic_ai(model_type: Any, url: str, model: str, tools: Sequence[Tool], stream: bool) -> str:
    async with AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        provider = OpenAIProvider(openai_client=client)
        agent = PydanticAgent(model_type(model, provider=provider), tools=list(tools))
        if not stream:
            return str((await agent.run("go")).output)
        async with agent.run_stream("go") as result:
            return str(await result.get_output())


async def langchain(responses: bool, url: str, model: str, tools: Sequence[Tool], stream: bool) -> str:
    chat = ChatOpenAI(
        model=model, base_url=url, api_key=SecretStr(KEY), use_responses_api=responses, max_retries=0
    ).bind_tools(tools)
    return await asyncio.to_thread(_langchain_loop, chat, {tool.__name__: tool for tool in tools}, stream)


def _langchain_loop(chat: Any, tools: dict[str, Tool], stream: bool) -> str:
    messages: list[Any] = [HumanMessage("go")]
    for _ in range(MAX_TURNS):
        answer = _joined(chat.stream(messages)) if stream else chat.invoke(messages)
        assert isinstance(answer, AIMessage)
        assert not answer.invalid_tool_calls
        if not answer.tool_calls:
            return str(answer.text)
        results = [
            ToolMessage(tools[c["name"]](**c["args"]), tool_call_id=c["id"]) for c in answer.tool_calls
        ]
        messages += [answer, *results]
    raise AssertionError("the model goes on and on")


def _joined(chunks: Any) -> Any:
    whole = next(chunks)
    for chunk in chunks:
        whole = whole + chunk
    return whole


CLIENTS: dict[str, Client] = {
    "openai-agents chat": partial(openai_agents, OpenAIChatCompletionsModel),
    "openai-agents responses": partial(openai_agents, OpenAIResponsesModel),
    "pydantic-ai chat": partial(pydantic_ai, pydantic_models.OpenAIChatModel),
    "pydantic-ai responses": partial(pydantic_ai, pydantic_models.OpenAIResponsesModel),
    "langchain chat": partial(langchain, False),
    "langchain responses": partial(langchain, True),
}
