"""The admin port of several workers, while one of them ends or fails: it answers, and says which."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from proxy.workers.admin import Gathered


@dataclass
class Port:
    """The admin port, and the workers behind it."""

    gathered: Gathered
    live: dict[int, Path]
    url: str
    client: aiohttp.ClientSession
    status: int = 200

    async def get(self, path: str) -> tuple[int, str]:
        async with self.client.get(self.url + path) as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
    async with AsyncExitStack() as stack:

        async def answer(request: web.Request) -> web.Response:
            said = {"/readyz": '{"faults": []}', "/metrics": "# TYPE calls counter\ncalls_total 1\n"}
            if found.status != 200:
                return web.Response(status=found.status, text="500 Internal Server Error\n\nServer got it")
            return web.Response(text=said.get(request.path, "told"))

        worker = web.Application()
        worker.router.add_route("*", "/{path:.*}", answer)
        running = web.AppRunner(worker)
        stack.push_async_callback(running.cleanup)
        await running.setup()
        await web.UnixSite(running, str(tmp_path / "1.sock")).start()
        live = {1: tmp_path / "1.sock"}
        gathered = Gathered(1, lambda: dict(live), CollectorRegistry())
        admin = web.AppRunner(gathered.app())
        stack.push_async_callback(admin.cleanup)
        stack.push_async_callback(gathered.close)
        await admin.setup()
        await web.TCPSite(admin, "127.0.0.1", 0).start()
        client = await stack.enter_async_context(aiohttp.ClientSession())
        host, number = admin.addresses[0][:2]
        found = Port(gathered, live, f"http://{host}:{number}", client)
        yield found


async def test_a_worker_that_ends_while_a_request_comes_in_is_not_asked(port: Port) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"a"
        begun.set()
        await ended.wait()
        yield b"b"

    async def decide() -> tuple[int, str]:
        async with port.client.post(f"{port.url}/v1/tickets/ABCDEF/approve", data=slowly()) as answer:
            return answer.status, await answer.text()

    deciding = asyncio.ensure_future(decide())
    await begun.wait()
    # Once another request is answered, the first one has been seen.
    assert await port.get("/x") == (200, "told")
    port.live.clear()
    await port.gathered.ended(1)
    ended.set()
    status, said = await deciding
    assert status == 503
    assert "No worker serves" in said


@pytest.mark.parametrize("status", [500, 404])
async def test_a_worker_that_fails_says_nothing_of_itself(port: Port, status: int) -> None:
    assert "calls_total" in (await port.get("/metrics"))[1]
    port.status = status
    ready, said = await port.get("/readyz")
    assert ready == 503
    assert "worker 1: it does not answer" in said
    served, metrics = await port.get("/metrics")
    assert served == 200
    assert "calls_total" in metrics
