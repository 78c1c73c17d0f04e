"""Providers and clients that would have one answer read as two, or one request as two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http.upstream.answer import Answer
from tests.http.providing import CHUNKED, HELLO, OK, Provider, Reader, Writer, body_of, client_of, get

LENGTH = b"Content-Length: 5\r\n"
CODING = b"Transfer-Encoding: chunked\r\n"

# Where llhttp, asked to take odd characters in a value, ends a line that has not ended.
REFUSED = {
    "a CR before a name": OK + b"X-A: \rContent-Length: 5\r\n\r\nhello",
    "a CR before a name, without a space": OK + b"X-A:\rContent-Length: 5\r\n\r\nhello",
    "a CR before a length": OK + b"Content-Length:\r 5\r\n\r\nhello",
    "a CR before the end of a line": OK + LENGTH + b"X-A: \r\r\n\r\nhello",
    "a LF behind an odd character": OK + b"X-A: \x01\nContent-Length: 5\r\n\r\nhello",
    "a line folded by it": OK + LENGTH + b"X-A: \x01\n b\r\n\r\nhello",
    "a head ended by it": OK + LENGTH + b"X-A: \x7f\n\r\nhello\r\n\r\n",
    "in what is said before": b"HTTP/1.1 103 Early\r\nX-A: \rX-B: b\r\n\r\n" + HELLO,
    "a coding of other letters": OK + "Transfer-Encoding: chun\u212aed\r\n\r\n0\r\n\r\n".encode(),
}


def read(parts: list[bytes], method: str = "POST") -> Answer:
    answer = Answer(method)
    for part in parts:
        answer.feed(part)
    answer.close(True)
    return answer


@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("case", REFUSED)
def test_a_line_ends_in_one_place(case: str, method: str) -> None:
    raw = REFUSED[case]
    for parts in ([raw], [raw[n : n + 1] for n in range(len(raw))], [raw[:30], raw[30:]]):
        answer = read(parts, method)
        assert answer.head is None
        assert answer.fault is not None
        assert answer.fault.code == "upstream_malformed"
        assert answer.body == []


BYTES = [b"%c" % byte for byte in b"\r\n \t:;,05af\0\x01\xff"]
STARTS = st.sampled_from(
    [OK, OK, b"HTTP/1.1 204 No Content\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 103 E\r\n\r\n" + OK]
)
LINES = st.sampled_from(
    [
        *(*BYTES, b"\r\n", b"\n", b"\r\n ", b"X-A:", b"X-A: a\r\n", b"X-A: \x01"),
        *(LENGTH, b"content-length:5\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length: 0\r\n"),
        *(CODING, b"Transfer-Encoding: gzip, chunked\r\n", b"Connection: close\r\n"),
    ]
)
BODIES = st.sampled_from(
    [
        b"hello",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;a=b\r\nhello\r\n00\r\n\r\n",
        b"1\r\n0\r\n0\r\nX-A: a\r\n\r\n",
        b"",
    ]
)
TAILS = st.sampled_from([*BYTES, b"\r\n", b"0\r\n\r\n", b"hello", HELLO])


def read_by_another(raw: bytes, method: str) -> tuple[int, bytes, bool] | None:
    """h11's reading: status, body and whether another request may follow; None where it has none."""
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20)
    reader.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(raw)
    status, body, is_closed = 0, b"", False
    try:
        while not isinstance(event := reader.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif event is h11.NEED_DATA and not is_closed:
                is_closed = True
                reader.receive_data(b"")
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None
    return status, body, reader.their_state is h11.DONE and not reader.trailing_data[0]


def is_odd(raw: bytes) -> bool:
    """Whether h11 refuses what is taken here on purpose: odd characters, and spaces around a chunk's size."""
    return any(odd in raw for odd in (b"\x01", b"\0", b"\xff", b"0 ", b"0\t"))


@settings(max_examples=300)
@given(
    STARTS,
    st.lists(LINES, max_size=3),
    st.sampled_from([LENGTH, CODING, CODING, b""]),
    BODIES,
    st.lists(TAILS, max_size=2),
    st.sampled_from(["POST", "POST", "HEAD"]),
)
def test_an_answer_that_is_taken_is_what_another_reader_reads(
    start: bytes, lines: list[bytes], framing: bytes, body: bytes, tail: list[bytes], method: str
) -> None:
    said = b"".join(lines) + framing + b"\r\n" + body + b"".join(tail)
    raw = start + said
    answer = Answer(method)
    answer.feed(raw)
    may_serve_again = answer.ended and answer.is_exact and answer.head is not None and answer.head.keeps
    answer.close(True)
    if not answer.ended or answer.head is None:
        return
    other = read_by_another(raw, method)
    if other is None:
        assert is_odd(said)
        return
    assert (answer.head.status, b"".join(answer.body)) == other[:2]
    assert other[2] or not may_serve_again


# -- requests that a provider might take for two

SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Mark: smuggled\r\n\r\n"


async def answering_what_it_reads(provider: Provider, reader: Reader, writer: Writer) -> None:
    """A provider for which no request has a body: each head is answered, with its mark."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        provider.requests.append(head)
        mark = b"smuggled" if b"smuggled" in head else head.split(b" ")[1].rpartition(b"/")[2]
        writer.write(OK + b"Content-Length: %d\r\n\r\n%b" % (len(mark), mark))
        await writer.drain()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_body_where_none_is_expected_is_nobodys_request(method: str, streamed: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield SMUGGLED

    body = pieces() if streamed else SMUGGLED
    headers = (("Content-Length", str(len(SMUGGLED))),)
    async with Provider(answering_what_it_reads) as provider, client_of(provider) as upstream:
        async with upstream.send(method, "/first", headers, body, None) as reply:
            assert await body_of(reply) == b"first"
        assert await get(upstream, path="/second") == b"second"
        assert provider.connections == 2


@pytest.mark.parametrize("framing", [HELLO, CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"])
async def test_what_is_sent_behind_an_early_answer_is_nobodys_request(framing: bytes) -> None:
    """The client waits for the answer with the rest of its body, which is sent before the answer is read."""
    answered, asked_again = asyncio.Event(), asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"
        await answered.wait()
        yield SMUGGLED

    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        if provider.connections == 1:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(3)
            writer.write(framing)
            await asked_again.wait()
        await answering_what_it_reads(provider, reader, writer)

    async with Provider(serve) as provider, client_of(provider) as upstream:
        headers = (("Content-Length", str(3 + len(SMUGGLED))),)
        async with upstream.send("POST", "/files", headers, pieces(), None) as reply:
            answered.set()
            while uploads():
                await asyncio.sleep(0)
            assert await body_of(reply) == b"hello"
        again = asyncio.ensure_future(get(upstream, path="/second"))
        await asyncio.sleep(0.02)
        asked_again.set()
        assert await again == b"second"


def uploads() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if "_send_pieces" in repr(task.get_coro())]
