"""Clients that go away, read slowly or not at all."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import orjson
import pytest

from tests.http.conftest import Before, Serve
from tests.http.harness import DROP, GET, ask, dechunked, http

STALL = {"kind": "stall", "after_frames": 4}
# What the provider does -> what the client has read of a stream when it goes away.
STAGES: dict[str, tuple[list[dict[str, Any]], bytes]] = {
    "before the head": ([{"text": "a", "delay_ms": 60_000}], b""),
    "in the text": ([{"text": "Hello there, how are you?", "fault": STALL}], b"Hello"),
    "while a call is held": ([{"calls": [GET], "fault": STALL}], b"role"),
    "between rounds": ([{"text": "Hm. ", "calls": [DROP]}, {"text": "b", "delay_ms": 60_000}], b"Hm."),
}
POST = "/v1/chat/completions"


async def _leave(port: int, request: bytes, until: bytes, reset: bool, arrived: Any) -> None:
    """Send, read until these bytes were there and the provider was asked, and go away."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    if until:
        await reader.readuntil(until)
    await arrived
    writer.transport.abort() if reset else writer.close()


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "close"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize("stage", STAGES)
async def test_a_client_that_goes_away_stops_the_provider(
    serve: Serve, stage: str, stream: bool, reset: bool
) -> None:
    turns, until = STAGES[stage]
    callgate = await serve(*turns)
    request = http("POST", POST, orjson.dumps(ask(stream=stream)))
    async with asyncio.timeout(10):
        arrived = callgate.provider.received(len(turns))
        await _leave(callgate.port, request, until if stream else b"", reset, arrived)
        await callgate.provider.disconnected(1)
    kept = callgate.app.upstream.kept_connections
    assert kept == 0, "a connection in mid-answer is not kept"
    record = await callgate.exchange()
    assert (record["outcome"], record["rounds"]) == ("cancelled", len(turns))


async def test_a_client_that_goes_away_in_its_own_request_leaves_nothing(serve: Serve) -> None:
    callgate = await serve({"text": "a"})
    for cut in (1, 30, -5):
        request = http("POST", POST, orjson.dumps(ask()))
        _, writer = await asyncio.open_connection("127.0.0.1", callgate.port)
        writer.write(request[:cut])
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    assert await callgate.records("exchange") == []
    assert callgate.provider.requests == []


FRAME = b'data: {"id":"x","choices":[{"index":0,"delta":{"role":"assistant","content":"%s"}}]}\n\n' % (
    b"a" * 2**17
)
END = b'data: {"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
FRAMES = 320


class Firehose:
    """A provider that streams 40 MiB as fast as they are taken, and counts."""

    def __init__(self) -> None:
        self.written = 0
        self.left = asyncio.Event()

    async def __aenter__(self) -> Firehose:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**17)
        await reader.readuntil(b"\r\n\r\n")
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            for _ in range(FRAMES):
                writer.write(FRAME)
                await writer.drain()
                self.written += len(FRAME)
            writer.write(END)
            await writer.drain()
        except ConnectionError:
            self.left.set()
        finally:
            writer.close()

    async def pause(self) -> int:
        """Wait until nothing more is taken; returns how much was."""
        before = -1
        while before != self.written or not before:
            before = self.written
            await asyncio.sleep(0.15)
        return before


def _narrow_client(port: int) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**18)
    client.connect(("127.0.0.1", port))
    client.sendall(http("POST", POST, orjson.dumps(ask(stream=True))))
    client.setblocking(False)
    return client


async def test_a_slow_reader_slows_the_provider_and_is_not_taken_for_a_silent_one(before: Before) -> None:
    async with Firehose() as provider:
        callgate = await before(provider, upstream={"idle_timeout_s": 0.1})
        with _narrow_client(callgate.port) as client:
            # Twice and more the idle timeout passes in here.
            taken = await provider.pause()
            assert taken < 20 * 2**20, "what the client does not read is not read from the provider"
            received = bytearray()
            while chunk := await asyncio.get_running_loop().sock_recv(client, 2**20):
                received += chunk
        assert dechunked(bytes(received).partition(b"\r\n\r\n")[2]) == FRAME * FRAMES + END
        assert (await callgate.exchange())["outcome"] == "answered"


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such option")
async def test_a_client_that_never_reads_is_left(before: Before) -> None:
    async with Firehose() as provider:
        callgate = await before(provider, limits={"stalled_client_s": 0.3})
        with _narrow_client(callgate.port):
            await asyncio.wait_for(provider.left.wait(), 10)
        assert (await callgate.exchange())["outcome"] == "cancelled"
