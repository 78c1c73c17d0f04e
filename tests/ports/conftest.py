"""The stores that the contract holds for: a new one joins by its name and an async context manager."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import pytest

from proxy.ports import Store
from proxy.stores.memory import MemoryStore
from proxy.stores.redis import RedisStore
from tests.stores import servers


@dataclass
class StoreBench:
    """A store under test, and how to let time pass for it (a server's clock can only be waited for)."""

    store: Store
    advance: Callable[[float], Awaitable[None]]


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def advance(self, seconds: float) -> None:
        self.now += seconds


Request = pytest.FixtureRequest


@asynccontextmanager
async def memory(request: Request) -> AsyncIterator[StoreBench]:
    clock = Clock()
    yield StoreBench(MemoryStore(clock=clock), clock.advance)


@asynccontextmanager
async def redis(request: Request) -> AsyncIterator[StoreBench]:
    async with _redis(request.getfixturevalue("redis_url")) as bench:
        yield bench


@asynccontextmanager
async def redis_cluster(request: Request) -> AsyncIterator[StoreBench]:
    async with _redis(request.getfixturevalue("cluster_url")) as bench:
        yield bench


@asynccontextmanager
async def _redis(url: str) -> AsyncIterator[StoreBench]:
    # The tests of the contract want answers, not speed: a busy machine must not fail them.
    store = RedisStore(url, timeout_s=10.0)
    try:
        yield StoreBench(store, asyncio.sleep)
    finally:
        await store.close()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with servers.server() as server:
        yield server.url


@pytest.fixture(scope="session")
def cluster_url() -> Iterator[str]:
    with servers.cluster() as nodes:
        yield "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


STORES: dict[str, Callable[[Request], AbstractAsyncContextManager[StoreBench]]] = {
    "memory": memory,
    "redis": redis,
    "redis cluster": redis_cluster,
}


@pytest.fixture(params=STORES)
async def bench(request: Request) -> AsyncIterator[StoreBench]:
    async with STORES[request.param](request) as bench:
        yield bench


@pytest.fixture
def store(bench: StoreBench) -> Store:
    return bench.store


@pytest.fixture
def key() -> str:
    """A key that no other test uses, however long the server behind the store lives."""
    return f"contract:{uuid4().hex}:"
