"""Connections to providers: kept, given up, and never mixed up."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

from proxy.http.upstream import HttpUpstream
from proxy.ports import UpstreamFailed
from tests.http.providing import (
    CHUNKED,
    HELLO,
    OK,
    Provider,
    Reader,
    Writer,
    body_of,
    fails,
    get,
    paired,
    playing,
)

KEPT = {
    "a length": HELLO,
    "chunks": CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    "words before": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + HELLO,
}
LEFT = {
    "the last": OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
    "an older version": HELLO.replace(b"1.1", b"1.0"),
    "an older version that stays": HELLO.replace(
        b"1.1 200 OK\r\n", b"1.0 200 OK\r\nConnection: keep-alive\r\n"
    ),
    "a line break behind": HELLO + b"\r\n",
    "an answer behind": HELLO + HELLO,
    "chunks behind chunks": KEPT["chunks"] * 2,
    "trailers": CHUNKED + b"5\r\nhello\r\n0\r\nX-A: a\r\n\r\n",
    "a provider that leaves now": OK + b"Keep-Alive: timeout=1\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("case", KEPT | LEFT)
async def test_a_connection_serves_again_or_is_left(case: str) -> None:
    async with paired((KEPT | LEFT)[case]) as (provider, upstream):
        for _ in range(3):
            assert await get(upstream) == b"hello"
            assert upstream.kept_connections == int(case in KEPT)
    assert provider.connections == (1 if case in KEPT else 3)


async def test_the_latest_used_is_used_first_and_the_others_are_kept() -> None:
    together = asyncio.Barrier(3)

    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        await provider.read(reader)
        await together.wait()
        writer.write(HELLO)
        await playing(HELLO)(provider, reader, writer)

    async with paired(serve) as (provider, upstream):
        await asyncio.gather(*(get(upstream) for _ in range(3)))
        kept = upstream._pools["one"]._kept
        before = list(kept)
        await get(upstream)
        assert list(kept) == before
        assert len(before) == provider.connections == 3


async def test_an_answer_that_is_not_read_takes_its_connection_with_it() -> None:
    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        await provider.read(reader)
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await provider.gone(reader)

    async with paired(serve) as (provider, upstream):
        async with upstream.send("GET", "/models", (), None, None) as reply:
            chunks = reply.chunks()
            assert await anext(chunks) == b"hello"
        await asyncio.wait_for(provider.left.acquire(), 5)
        assert upstream.kept_connections == 0
        with pytest.raises(UpstreamFailed):
            await anext(chunks)


async def test_a_reader_that_stays_behind_reads_nothing_of_the_next_answer() -> None:
    answers = [OK + b"Content-Length: 6\r\n\r\nfor me", OK + b"Content-Length: 7\r\n\r\nfor you"]
    async with paired(playing(*answers)) as (provider, upstream):
        async with upstream.send("GET", "/models", (), None, None) as first:
            stale = first.chunks()
        async with upstream.send("GET", "/models", (), None, None) as second:
            assert b"".join([chunk async for chunk in stale]) == b"for me"
            assert await body_of(second) == b"for you"
        assert provider.connections == 1


@pytest.mark.parametrize("said", [b"", HELLO, b"\r\n", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
async def test_what_a_provider_does_unasked_is_seen_before_the_connection_is_used(said: bytes) -> None:
    """The loop has no turn between its doing and the next request: only the socket knows."""
    writers: list[Writer] = []

    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        writers.append(writer)
        await playing(HELLO)(provider, reader, writer)

    async with paired(serve) as (provider, upstream):
        assert await get(upstream, "POST", b"1") == b"hello"
        link = writers[0].get_extra_info("socket")
        with socket.fromfd(link.fileno(), link.family, link.type) as twin:
            if said:
                twin.send(said)
            else:
                twin.shutdown(socket.SHUT_WR)
        assert upstream.kept_connections == 1
        assert await get(upstream, "POST", b"2") == b"hello"
        assert provider.connections == 2
        assert [request[-1:] for request in provider.requests] == [b"1", b"2"]


async def test_a_connection_that_ends_while_it_is_kept_is_forgotten() -> None:
    async with paired(playing(HELLO, then_close=True)) as (_, upstream):
        await get(upstream)
        async with asyncio.timeout(5):
            while upstream.kept_connections:
                await asyncio.sleep(0)
        assert upstream.kept_connections == 0


async def test_a_connection_that_nobody_uses_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.http.upstream.pool._IDLE_S", 0.05)

    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        await provider.read(reader)
        writer.write(HELLO)
        await provider.gone(reader)

    async with paired(serve) as (provider, upstream):
        await get(upstream)
        await asyncio.wait_for(provider.left.acquire(), 5)
        assert upstream.kept_connections == 0


@pytest.mark.parametrize(
    ("method", "body", "sent"), [("POST", b"{}", 2), ("POST", None, 2), ("GET", None, 3), ("DELETE", None, 3)]
)
async def test_only_what_may_be_done_twice_is_sent_twice(method: str, body: bytes | None, sent: int) -> None:
    """The provider closes a kept connection as it reads the second request."""

    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        while len(provider.requests) != 1 or provider.connections == 2:
            await provider.read(reader)
            writer.write(HELLO)
        await provider.read(reader)

    async with paired(serve) as (provider, upstream):
        await get(upstream, method, body)
        if sent == 2:
            failure = await fails(upstream, method, body)
            assert (failure.status, failure.code) == (502, "upstream_broken")
        else:
            assert await get(upstream, method, body) == b"hello"
        assert len(provider.requests) == sent


@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_what_was_begun_to_be_answered_is_not_sent_twice(begun: bytes) -> None:
    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        await provider.read(reader)
        writer.write(HELLO)
        await provider.read(reader)
        writer.write(begun)

    async with paired(serve) as (provider, upstream):
        await get(upstream)
        assert (await fails(upstream)).code == "upstream_broken"
        assert len(provider.requests) == 2


async def test_everybody_gets_the_answer_to_their_own_question() -> None:
    """Hundreds at once, on providers and with readers that do all that ends a connection early."""
    chance = random.Random(7)

    def say(asked: bytes) -> tuple[bytes, bool]:
        """An answer, perhaps with more behind it or with less; and whether the connection ends then."""
        length = b"Content-Length: %d\r\n\r\n" % len(asked) + asked
        whole = [OK + length, OK + b"Connection: close\r\n" + length]
        whole.append(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(asked), asked))
        stolen = OK + b"Content-Length: 6\r\n\r\nstolen"
        answer = chance.choice(whole) + chance.choice([b"", b"", b"\r\n", stolen])
        if chance.random() < 0.8:
            return answer, False
        return answer[: chance.randrange(len(answer))], chance.random() < 0.5

    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        ends = False
        while not ends:
            answer, ends = say((await provider.read(reader)).partition(b"\r\n\r\n")[2])
            cut = chance.randrange(len(answer) + 1)
            for piece in (answer[:cut], answer[cut:]):
                writer.write(piece)
                await asyncio.sleep(0)

    async def question(upstream: HttpUpstream, number: int) -> bool:
        asked = b"question %d" % number * chance.randrange(1, 30)
        try:
            async with asyncio.timeout(chance.choice([0.002, 1, 1, 1])):
                async with upstream.send("POST", "/completions", (), asked, None) as reply:
                    if chance.random() < 0.2:
                        return False
                    got = b""
                    async for chunk in reply.chunks():
                        got += chunk
                        assert asked.startswith(got)
                    assert got == asked
                    return True
        except (UpstreamFailed, TimeoutError):
            return False

    patience = {"first_byte_timeout_s": 0.2, "idle_timeout_s": 0.2}
    async with paired(serve, **patience) as (provider, upstream):
        answered = 0
        for start in range(0, 600, 40):
            answered += sum(await asyncio.gather(*(question(upstream, start + n) for n in range(40))))
        assert answered > 100
        assert provider.connections < 600, "some served again"


async def test_a_connection_that_the_provider_may_be_closing_is_not_used() -> None:
    async with paired(HELLO) as (provider, upstream):
        await get(upstream, "POST", b"{}")
        (kept,) = upstream._pools["one"]._kept
        kept.idle_until = asyncio.get_running_loop().time()
        await get(upstream, "POST", b"{}")
        assert (provider.connections, upstream.kept_connections) == (2, 1)
