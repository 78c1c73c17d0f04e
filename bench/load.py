"""The load: plain HTTP/1.1 over kept connections, with as little of its own as can be."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

from bench.processes import BenchFault
from bench.workload import Exchange

_ANSWER_WITHIN_S = 30.0
_HEAD_END = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


@dataclass
class Sample:
    """What a number of requests came to, as their client saw it."""

    total_s: list[float] = field(default_factory=list)
    """Seconds from the request's first byte to the answer's last."""
    first_s: list[float] = field(default_factory=list)
    """Seconds to the first byte of the answer's payload."""


class Client(asyncio.Protocol):
    """One connection: one request after the other."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._payload_at = 0
        self._length: int | None = None
        self._first = 0.0
        self._done: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(BenchFault(f"the connection was closed: {exc or self._shown()}"))

    async def ask(self, request: bytes, exchange: Exchange) -> tuple[float, float]:
        """Send a request and read its answer; returns the seconds to its first and its last byte."""
        assert self._transport is not None
        self._buffer.clear()
        self._payload_at, self._first = 0, 0.0
        self._done = asyncio.get_running_loop().create_future()
        began = perf_counter()
        self._transport.write(request)
        await self._done
        took = perf_counter() - began
        end = len(self._buffer) if self._length is not None else -len(b"\r\n" + _LAST_CHUNK)
        ended = self._buffer[:end].endswith(exchange.ends_with) and exchange.holds in self._buffer
        if not self._buffer.startswith(b"HTTP/1.1 200 ") or not ended:
            raise BenchFault(f"not the answer that was expected: {self._shown()}")
        return self._first - began, took

    def _shown(self) -> str:
        return bytes(self._buffer[:1000]).decode(errors="replace")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._payload_at:
            if (end := self._buffer.find(_HEAD_END)) < 0:
                return
            self._payload_at = end + len(_HEAD_END)
            self._length = _content_length(bytes(self._buffer[:end]))
        received = len(self._buffer) - self._payload_at
        if received and not self._first:
            self._first = perf_counter()
        whole = self._buffer.endswith(_LAST_CHUNK) if self._length is None else received >= self._length
        if whole and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _content_length(head: bytes) -> int | None:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return None


class Numbers:
    """Gives every request of a run a number of its own."""

    def __init__(self) -> None:
        self.take = itertools.count(1).__next__


async def drive(port: int, exchange: Exchange, count: int, concurrency: int, numbers: Numbers) -> Sample:
    """Send ``count`` requests, ``concurrency`` at a time; raises ``BenchFault`` at the first wrong answer."""
    sample = Sample()
    left = iter(range(count))
    try:
        async with asyncio.timeout(_ANSWER_WITHIN_S + count * 0.05), asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, count)):
                group.create_task(_worker(port, exchange, left, sample, numbers))
    except* BenchFault as faults:
        raise faults.exceptions[0] from None
    except* TimeoutError:
        raise BenchFault(f"{exchange.name}: no answer in time") from None
    return sample


async def _worker(
    port: int, exchange: Exchange, left: Iterator[int], sample: Sample, numbers: Numbers
) -> None:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(Client, "127.0.0.1", port)
    try:
        for _ in left:
            first, total = await client.ask(exchange.request(numbers.take()), exchange)
            sample.first_s.append(first)
            sample.total_s.append(total)
    finally:
        client.close()
