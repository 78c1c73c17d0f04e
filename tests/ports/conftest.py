"""The stores that the contract holds for: a new one joins by its name and an async context manager."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import pytest

from proxy.ports import Store
from proxy.stores.memory import MemoryStore


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


@asynccontextmanager
async def memory() -> AsyncIterator[StoreBench]:
    clock = Clock()
    yield StoreBench(MemoryStore(clock=clock), clock.advance)


STORES: dict[str, Callable[[], AbstractAsyncContextManager[StoreBench]]] = {"memory": memory}


@pytest.fixture(params=STORES)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[StoreBench]:
    async with STORES[request.param]() as bench:
        yield bench


@pytest.fixture
def store(bench: StoreBench) -> Store:
    return bench.store


@pytest.fixture
def key() -> str:
    """A key that no other test uses, however long the server behind the store lives."""
    return f"contract:{uuid4().hex}:"
