"""What a provider is sent: whole, in pieces, slowly, and while it answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.ports import UpstreamFailed
from tests.http.providing import CHUNKED, HELLO, Provider, Reader, Writer, body_of, fails, get, paired


async def source(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("size", [0, 1, 16 * 2**10, 16 * 2**10 + 1, 5 * 2**20])
async def test_a_body_is_sent_whole(size: int) -> None:
    body = b"x" * size
    async with paired(HELLO) as (provider, upstream):
        for _ in range(2):
            assert await get(upstream, "POST", body) == b"hello"
        head, _, sent = provider.requests[-1].partition(b"\r\n\r\n")
        assert len(sent) == size
        assert b"Content-Length: %d" % size in head
        assert provider.connections == 1


@pytest.mark.parametrize("length", [None, 6])
async def test_a_body_in_pieces_goes_on_as_it_comes(length: int | None) -> None:
    headers = () if length is None else (("content-length", f"{length}"),)
    async with paired(HELLO) as (provider, upstream):
        for _ in range(2):
            pieces = source(b"abc", b"", b"def")
            async with upstream.send("POST", "/files", headers, pieces, None) as reply:
                assert await body_of(reply) == b"hello"
        head, _, sent = provider.requests[-1].partition(b"\r\n\r\n")
        assert sent == (b"abcdef" if length else b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")
        assert head.lower().count(b"content-length") == (length is not None)
        assert provider.connections == 1


@pytest.mark.parametrize("pieces", [[b"abc"], [b"abc", b"defg"], [b"abcdefg"]])
async def test_a_body_of_another_length_is_not_taken_for_a_whole_one(pieces: list[bytes]) -> None:
    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        received.append(await reader.read(-1))

    received: list[bytes] = []
    async with paired(serve) as (_, upstream):
        with pytest.raises(UpstreamFailed) as caught:
            async with upstream.send("POST", "/files", (("Content-Length", "6"),), source(*pieces), None):
                pass
        assert caught.value.code == "upstream_broken"
        async with asyncio.timeout(5):
            while not received:
                await asyncio.sleep(0)
        assert len(received[0].partition(b"\r\n\r\n")[2]) < 6


async def test_a_body_whose_source_breaks_is_not_taken_for_a_whole_one() -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"abc"
        raise RuntimeError("the client's side broke")

    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        received.append(await reader.read(-1))

    received: list[bytes] = []
    async with paired(serve) as (_, upstream):
        assert (await fails(upstream, "POST", breaking())).code == "upstream_broken"
        async with asyncio.timeout(5):
            while not received:
                await asyncio.sleep(0)
        assert not received[0].endswith(b"0\r\n\r\n")


async def test_a_provider_that_reads_slowly_slows_the_source() -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 2**16
            yield bytes(2**16)

    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        await provider.left.acquire()

    async with paired(serve, first_byte_timeout_s=0.4) as (provider, upstream):
        assert (await fails(upstream, "POST", endless())).code == "upstream_timeout"
        provider.left.release()
    assert given < 16 * 2**20, "what the provider does not read is not taken from the source"


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nhello", CHUNKED + b"5\r\nhello\r\n"]
)
async def test_a_provider_may_answer_before_it_was_told_all(answer: bytes) -> None:
    waiting = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"abc"
        await waiting.wait()

    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await provider.gone(reader)

    async with paired(serve) as (provider, upstream):
        async with upstream.send("POST", "/files", (), slow(), None) as reply:
            assert await anext(reply.chunks()) == b"hello"
        await asyncio.wait_for(provider.left.acquire(), 5)
        assert upstream.kept_connections == 0


async def test_a_body_that_is_answered_before_it_was_sent_goes_before_no_other_request() -> None:
    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HELLO)
        await provider.gone(reader)

    async with paired(serve) as (_, upstream):
        assert await get(upstream, "POST", bytes(64 * 2**20)) == b"hello"
        assert upstream.kept_connections == 0
