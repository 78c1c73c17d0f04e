"""How answers end: whole, cut, silent, cancelled, not taken."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from proxy.http.upstream import HttpUpstream
from proxy.ports import Ask, UpstreamFailed
from tests.http.providing import CHUNKED, HELLO, OK, Provider, Reader, Writer, body_of, fails, get, paired


async def test_an_answer_to_head_has_no_body() -> None:
    async with paired(OK + b"Content-Length: 500\r\n\r\n") as (provider, upstream):
        async with upstream.send("HEAD", "/models", (), None, None) as reply:
            assert (await body_of(reply), reply.length) == (b"", 500)
        assert await get(upstream, "HEAD") == b""
        assert provider.connections == 1


async def test_a_body_that_is_there_is_read_without_waiting() -> None:
    async with (
        paired(HELLO) as (_, upstream),
        upstream.send("GET", "/models", (), None, None) as reply,
    ):
        step = reply.chunks().__anext__()
        with pytest.raises(StopIteration) as done:
            step.send(None)  # type: ignore[attr-defined]
        assert done.value.value == b"hello"


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "upstream_broken"),
        (OK[:7], "upstream_broken"),
        (OK + b"Content-Type: text/plain\r\n", "upstream_broken"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "upstream_broken"),
        (OK + b"Content-Length: 6\r\n\r\nhello", "upstream_incomplete"),
        (CHUNKED + b"6\r\nhello", "upstream_incomplete"),
        (CHUNKED + b"5\r\nhello\r\n0\r\n", "upstream_incomplete"),
        (OK + b"\r\nhello", ""),
    ],
)
async def test_where_an_answer_is_cut_decides_what_it_was(answer: bytes, code: str, end: str) -> None:
    taken = asyncio.Event()

    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        await provider.read(reader)
        writer.write(answer)
        await writer.drain()
        if end == "reset":
            link = writer.get_extra_info("socket")
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            if answer.endswith(b"hello"):
                await taken.wait()
            writer.transport.abort()

    async with paired(serve) as (provider, upstream):
        got = b""
        try:
            async with upstream.send("POST", "/completions", (), b"{}", None) as reply:
                async for chunk in reply.chunks():
                    got += chunk
                    taken.set()
            failed = ""
        except UpstreamFailed as exc:
            failed = exc.code
        assert failed == (code if code or end == "close" else "upstream_incomplete")
        if b"hello" in answer:
            assert got == b"hello", "what did arrive is not lost"
        assert provider.connections == 1


async def test_a_provider_that_says_nothing_is_left_in_time() -> None:
    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        await provider.read(reader)
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200")
        await provider.gone(reader)

    async with paired(serve, first_byte_timeout_s=0.05) as (provider, upstream):
        failure = await fails(upstream)
        assert (failure.status, failure.code) == (504, "upstream_timeout")
        assert "0.05 s" in failure.message
        await asyncio.wait_for(provider.left.acquire(), 5)


async def take(chunks: AsyncIterator[bytes], got: list[bytes]) -> None:
    async for chunk in chunks:
        got.append(chunk)


async def test_a_provider_that_falls_silent_is_left_and_a_slow_reader_is_not() -> None:
    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        await provider.read(reader)
        writer.write(CHUNKED)
        for _ in range(8):
            writer.write(b"5\r\nhello\r\n")
            await asyncio.sleep(0.04)
        await provider.gone(reader)

    async with paired(serve, idle_timeout_s=0.5) as (provider, upstream):
        async with upstream.send("GET", "/models", (), None, None) as reply:
            chunks, got = reply.chunks(), [b""]
            for _ in range(2):
                got.append(await anext(chunks))
            await asyncio.sleep(0.8)  # the reader's time, not the provider's
            with pytest.raises(UpstreamFailed) as caught:
                await take(chunks, got)
        assert b"".join(got) == b"hello" * 8
        assert (caught.value.status, caught.value.code) == (504, "upstream_stalled")
        await asyncio.wait_for(provider.left.acquire(), 5)


async def test_what_a_reader_does_not_take_is_not_read() -> None:
    written = 0

    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        nonlocal written
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**17)
        await provider.read(reader)
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % (64 * 2**20))
        for _ in range(64 * 16):
            writer.write(b"x" * 2**16)
            await writer.drain()
            written += 2**16

    async with paired(serve) as (provider, upstream):
        async with upstream.send("GET", "/models", (), None, None) as reply:
            before = -1
            while before != written or not written:
                before = written
                await asyncio.sleep(0.05)
            assert written < 16 * 2**20
            assert len(await body_of(reply)) == 64 * 2**20
        assert await get(upstream, "HEAD") == b"" or provider.connections == 1


@pytest.mark.parametrize("stage", ["connecting", "before the head", "in the head", "in the body", "draining"])
async def test_who_is_cancelled_stops_the_provider(stage: str) -> None:
    waits = asyncio.Event()

    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        await provider.read(reader)
        said = {"in the head": OK, "in the body": CHUNKED + b"5\r\nhello\r\n", "draining": CHUNKED}
        writer.write(said.get(stage, b""))
        await writer.drain()
        waits.set()
        await provider.gone(reader)

    async def asking(upstream: HttpUpstream) -> None:
        async with upstream.ask(Ask("/chat/completions", b"{}", (), "m")) as reply:
            await (reply.drain() if stage == "draining" else body_of(reply))  # type: ignore[arg-type]

    async with paired(serve) as (provider, upstream):
        task = asyncio.ensure_future(asking(upstream))
        if stage == "connecting":
            for _ in range(3):
                await asyncio.sleep(0)
        else:
            await asyncio.wait_for(waits.wait(), 5)
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if stage != "connecting":
            await asyncio.wait_for(provider.left.acquire(), 5)
        assert upstream.kept_connections == 0


@pytest.mark.parametrize("last", [b"0\r\n\r\n", b""])
async def test_what_is_about_to_end_is_read_to_its_end(last: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.http.upstream.reply._DRAIN_S", 0.05 if not last else 5)

    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        await provider.read(reader)
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(last)
        await provider.gone(reader)

    async with paired(serve) as (_, upstream):
        async with upstream.send("GET", "/models", (), None, None) as reply:
            assert await anext(reply.chunks()) == b"hello"
            await reply.drain()
        assert upstream.kept_connections == (1 if last else 0)


async def test_closing_ends_answers_too() -> None:
    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        await provider.read(reader)
        writer.write(CHUNKED)
        await provider.gone(reader)

    async with (
        paired(serve) as (_, upstream),
        upstream.send("GET", "/models", (), None, None) as reply,
    ):
        await upstream.close()
        with pytest.raises(UpstreamFailed):
            await body_of(reply)
