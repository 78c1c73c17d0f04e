"""Real servers on free ports; whatever a test leaves open is found at its end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from openai import AsyncOpenAI

from proxy.scripted import Script, ScriptedProvider
from tests.http.harness import Callgate, scripted, start

Before = Callable[..., Awaitable[Callgate]]
Serve = Callable[..., Awaitable[Callgate]]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that ``callgate serve`` runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="module", autouse=True)
def _collected_here() -> Iterator[None]:
    """A policy engine must end on the thread that made it, so nothing may be collected on another."""
    gc.disable()
    yield
    gc.collect()
    gc.enable()


@pytest.fixture
async def before(tmp_path: Path) -> AsyncIterator[Before]:
    """Start a Callgate before a provider of the test's own; settings by keyword."""
    running: list[Callgate] = []

    async def before(provider: Any, **sections: Any) -> Callgate:
        running.append(await start(provider, tmp_path / str(len(running)), **sections))
        return running[-1]

    yield before
    for callgate in running:
        await callgate.stop()
    await _nothing_is_left()


@pytest.fixture
async def serve(before: Before) -> AsyncIterator[Serve]:
    """Start a Callgate before a provider that plays turns (or scripts); settings by keyword, and ``stores``
    for a provider that keeps its answers."""
    async with AsyncExitStack() as stack:

        async def serve(*turns: Any, **sections: Any) -> Callgate:
            scripts = [turn for turn in turns if isinstance(turn, Script)]
            stores = sections.pop("stores", False)
            provider = ScriptedProvider(scripts or [scripted(*turns)], stores=stores)
            return await before(await stack.enter_async_context(provider), **sections)

        yield serve


async def _nothing_is_left() -> None:
    """Every task that the servers began has ended; transports need a turn or two of the loop to close."""
    for _ in range(100):
        left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task() and _is_ours(t)]
        if not left:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"tasks were left: {left}")


def _is_ours(task: asyncio.Task[Any]) -> bool:
    return "pytest" not in repr(task.get_coro()) and "test_" not in repr(task.get_coro())


@pytest.fixture
async def client_of() -> AsyncIterator[Callable[..., AsyncOpenAI]]:
    """The official client of a Callgate, closed when the test ends."""
    clients: list[AsyncOpenAI] = []

    def make(callgate: Callgate, **options: Any) -> AsyncOpenAI:
        key = options.pop("api_key", "sk-user")
        clients.append(AsyncOpenAI(base_url=callgate.url, api_key=key, max_retries=0, **options))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session
