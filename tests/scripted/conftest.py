"""A provider for each test, and the clients that talk to it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

from proxy.scripted import Script, ScriptedProvider

Serve = Callable[..., Awaitable[ScriptedProvider]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a provider that plays these turns as model ``m``, or these scripts."""
    async with AsyncExitStack() as stack:

        async def start(*turns: Any, scripts: Any = None, **options: Any) -> ScriptedProvider:
            provider = ScriptedProvider(scripts or [Script.of("m", turns)], **options)
            return await stack.enter_async_context(provider)

        yield start


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def client_of() -> AsyncIterator[Callable[[ScriptedProvider], AsyncOpenAI]]:
    """A real client of a provider, closed when the test ends."""
    clients: list[AsyncOpenAI] = []

    def make(provider: ScriptedProvider) -> AsyncOpenAI:
        clients.append(AsyncOpenAI(base_url=provider.url, api_key="unused", max_retries=0))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


@pytest.fixture
def ask() -> Callable[..., dict[str, Any]]:
    """A request of one user message; further members by keyword."""

    def request(**members: Any) -> dict[str, Any]:
        return {"model": "m", "messages": [{"role": "user", "content": "go"}]} | members

    return request
