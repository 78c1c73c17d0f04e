"""A Redis that hangs, is gone, or comes back: bounded waits, one error, recovery without a restart."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as NotConnected

from proxy.ports import Unavailable
from proxy.stores.redis import RedisStore
from tests.stores import servers
from tests.stores.servers import Server

TIMEOUT_S, PAUSE_S = 1.5, 0.3
SLACK_S = 3.0
"""What a busy machine may add to a bound."""

OPERATIONS: dict[str, Callable[[RedisStore], Awaitable[object]]] = {
    "get": lambda store: store.get("k"),
    "get_many": lambda store: store.get_many(["k", "l"]),
    "put_many": lambda store: store.put_many({"k": b"v", "l": b"w"}, 60),
    "put": lambda store: store.put("k", b"v", 60),
    "claim": lambda store: store.put("k", b"v", 60, only_if_absent=True),
    "take": lambda store: store.take("k"),
    "count": lambda store: store.count("n", 1, 60),
    "ping": lambda store: store.ping(),
}


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with servers.server(password="s3cret") as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    yield shared
    if shared.process is None:
        shared.start()
    shared.resume()


def store_of(server: Server, **options: Any) -> RedisStore:
    url = f"redis://:{server.password}@127.0.0.1:{server.port}/0"
    return RedisStore(url, timeout_s=TIMEOUT_S, pause_s=PAUSE_S, **options)


@pytest.fixture
async def store(server: Server) -> AsyncIterator[RedisStore]:
    store = store_of(server)
    await store.put("k", b"v", 60)
    yield store
    await store.close()


async def failed(operation: Awaitable[object]) -> str:
    with pytest.raises(Unavailable) as caught:
        await operation
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


async def recovered(store: RedisStore, within_s: float = 10.0) -> bytes | None:
    async with asyncio.timeout(within_s):
        while True:
            try:
                return await store.get("k")
            except Unavailable:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("how", ["pause", "kill"])
async def test_no_answer_is_unavailable_and_in_time(
    server: Server, store: RedisStore, name: str, how: str
) -> None:
    getattr(server, how)()
    began = time.monotonic()
    message = await failed(OPERATIONS[name](store))
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    assert message.startswith(f"Redis at 127.0.0.1:{server.port} does not answer: ")
    assert store.fault == message


async def test_listing_keys_ends_too(server: Server, store: RedisStore) -> None:
    server.kill()
    assert "does not answer" in await failed(store.keys(""))


async def test_it_is_left_alone_for_a_while(server: Server) -> None:
    now = 0.0
    store = store_of(server, max_failures=3, clock=lambda: now)
    await store.get("k")
    server.pause()
    await asyncio.gather(*(failed(store.get("k")) for _ in range(3)))
    messages = [await failed(store.get("k")) for _ in range(100)]
    assert all("left alone for a moment" in message for message in messages)
    server.resume()
    assert "left alone" in await failed(store.get("k"))
    now += PAUSE_S
    await store.get("k")
    assert store.fault is None
    await store.close()


async def test_a_hanging_server_holds_up_no_more_than_its_timeout(server: Server) -> None:
    store = store_of(server)
    await store.get("k")
    server.pause()
    began = time.monotonic()
    await asyncio.gather(*(failed(store.get("k")) for _ in range(2000)))
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    server.resume()
    await recovered(store)
    await store.close()


async def test_it_goes_on_when_the_server_hangs_and_wakes(server: Server, store: RedisStore) -> None:
    server.pause()
    for _ in range(6):
        await failed(store.get("k"))
    server.resume()
    assert await recovered(store) == b"v"


async def test_it_goes_on_with_an_empty_server_after_a_restart(server: Server, store: RedisStore) -> None:
    server.kill()
    for _ in range(6):
        await failed(store.get("k"))
    server.start()
    assert await recovered(store) is None
    assert await store.put("k", b"new", 60)
    assert await store.count("after", 2, 60) == 2


async def test_a_restart_between_two_questions_is_not_noticed(server: Server, store: RedisStore) -> None:
    await asyncio.gather(*(store.get("k") for _ in range(30)))  # many connections, all of them dead below
    await asyncio.to_thread(server.kill)
    server.start()
    assert await asyncio.gather(*(store.get("k") for _ in range(30))) == [None] * 30


async def test_a_cancelled_question_harms_no_other(store: RedisStore) -> None:
    for delay in range(40):
        asked = asyncio.ensure_future(store.put("k", b"x" * 100_000, 60))
        for _ in range(delay):
            await asyncio.sleep(0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert await store.get("absent") is None
        assert await store.count("steps", 1, 60) == delay + 1
    await store.take("steps")


async def test_an_outage_is_said_once_and_its_end_too(
    server: Server, store: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "callgate.store")
    server.kill()
    for _ in range(20):
        await failed(store.get("k"))
    server.start()
    await recovered(store)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "does not answer" in caplog.messages[0]
    assert "answers again" in caplog.messages[1]
    assert "s3cret" not in caplog.text


async def test_it_is_ready_once_it_has_answered(server: Server) -> None:
    server.kill()
    store = store_of(server)
    await store.start()
    assert not store.ready
    assert store.fault is not None
    server.start()
    async with asyncio.timeout(10):
        while not store.ready:
            await asyncio.sleep(0.02)
    assert store.fault is None
    server.kill()
    await failed(store.get("k"))
    assert store.ready
    await store.close()


async def test_a_wrong_password_is_said_and_not_shown(server: Server) -> None:
    store = RedisStore(f"redis://:wr0ng@127.0.0.1:{server.port}", timeout_s=TIMEOUT_S)
    message = await failed(store.get("k"))
    assert re.search("invalid username-password|WRONGPASS", message)
    assert "wr0ng" not in message
    await store.close()


async def test_whatever_an_error_repeats_no_password_is_shown(server: Server, store: RedisStore) -> None:
    assert "s3cret" not in store._cause(NotConnected(f"cannot reach {store._address.password}@host\nat all"))


async def test_an_answer_that_is_a_refusal_is_unavailable_and_opens_nothing(store: RedisStore) -> None:
    await store.put("text", b"not a number", 60)
    for _ in range(10):
        assert "refused" in await failed(store.count("text", 1, 60))
    assert await store.get("k") == b"v"


async def test_a_server_that_is_full_refuses(server: Server, store: RedisStore) -> None:
    with server.client() as client:
        client.config_set("maxmemory", "1mb")
        try:
            assert "refused" in await failed(store.put("big", b"x" * 2_000_000, 60))
            assert await store.get("k") == b"v"
        finally:
            client.config_set("maxmemory", "0")


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "noeviction"])
async def test_a_server_that_drops_keys_is_warned_of(
    server: Server, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    with server.client() as client:
        client.config_set("maxmemory-policy", policy)
        store = store_of(server)
        await store.start()
        await asyncio.gather(*store._tasks)
        client.config_set("maxmemory-policy", "noeviction")
    assert ("maxmemory-policy" in caplog.text) == (policy != "noeviction")
    await store.close()


class Blackhole:
    """A forwarder whose open connections can be made dead without being closed, as a network does it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._dead: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self.connections = 0

    async def __aenter__(self) -> Blackhole:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._open:
            writer.close()
        await asyncio.gather(*self._serving)

    def swallow(self) -> None:
        self._dead = set(self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        there, back = await asyncio.open_connection("127.0.0.1", self._port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    if writer not in self._dead:
                        sink.write(data)
            except ConnectionError:
                pass
            finally:
                sink.close()

        await asyncio.gather(pump(reader, back), pump(there, writer))


async def test_connections_that_died_unseen_are_not_tried_one_after_another(server: Server) -> None:
    timeout_s = 1.5  # in which so many connections can be made
    async with Blackhole(server.port) as network:
        store = RedisStore(f"redis://:s3cret@127.0.0.1:{network.port}", timeout_s=timeout_s, pause_s=PAUSE_S)
        try:
            await asyncio.gather(*(store.get("k") for _ in range(60)))
            assert network.connections > 20
            network.swallow()
            began = time.monotonic()
            await asyncio.gather(*(failed(store.get("k")) for _ in range(5)))
            await recovered(store)
            assert time.monotonic() - began < timeout_s * 2 + PAUSE_S + SLACK_S
        finally:
            await store.close()
