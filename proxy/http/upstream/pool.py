"""The connections to one provider: opened when none is free, kept for a while, the latest used first."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
import ssl
from collections.abc import Sequence

from aiohappyeyeballs import AddrInfoType, start_connection
from yarl import URL

from proxy.http.upstream import faults
from proxy.http.upstream.connection import Connection
from proxy.http.upstream.endpoint import Endpoint

log = logging.getLogger("callgate.upstream")

_IDLE_S = 15.0
"""For how long a connection is kept that nobody uses: less than any provider keeps it."""
_NAMES_S = 60.0
"""For how long a name's addresses are believed."""
_NEXT_ADDRESS_S = 0.25  # RFC 8305 5


class Pool:
    """Opens and keeps the connections to one provider; as many as there are requests."""

    def __init__(self, endpoint: Endpoint) -> None:
        url = URL(endpoint.base_url)
        self._endpoint = endpoint
        self._host, self._port = url.raw_host or "", url.port or 0
        # Not the whole URL: its query may hold a key.
        self._name = f"upstream {endpoint.name!r} at {url.host_port_subcomponent}"
        self._tls = _context(endpoint.tls) if url.scheme == "https" else None
        self._loop = asyncio.get_running_loop()
        self._open: set[Connection] = set()
        self._kept: dict[Connection, None] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._addresses: Sequence[AddrInfoType] = ()
        self._believed_until = 0.0
        self._looking_up = asyncio.Lock()
        self._is_closed = False
        self._is_out = False
        self._reached = 0
        self._emptied: asyncio.Future[None] | None = None

    @property
    def kept(self) -> int:
        """How many connections wait for a request."""
        return len(self._kept)

    def take(self) -> Connection | None:
        """A kept connection that can be used, if there is one."""
        while self._kept:
            connection, _ = self._kept.popitem()
            if connection.idle_until > self._loop.time() and connection.is_open:
                return connection
            connection.abort()
        return None

    def keep(self, connection: Connection, idle_s: int | None) -> None:
        """Keep a connection for another request; ``idle_s`` is for how long the provider does."""
        # A second less: a request that is written as the provider closes is lost.
        stay_s = _IDLE_S if idle_s is None else min(_IDLE_S, idle_s - 1.0)
        if stay_s <= 0:
            connection.abort()
            return
        connection.idle_until = self._loop.time() + stay_s
        self._kept[connection] = None
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(_IDLE_S, self._sweep)

    async def connect(self) -> Connection:
        """A new connection; raises ``UpstreamFailed`` where there is none to be had in time."""
        timeout_s = self._endpoint.connect_timeout_s
        deadline = asyncio.timeout(timeout_s)
        reached = self._reached
        try:
            async with deadline:
                connection = await self._connect()
        except (OSError, UnicodeError) as exc:
            # A name may have moved: the next one asks again.
            self._believed_until = 0.0
            # Who began before another was connected may only now be told of an outage that is over.
            if reached == self._reached:
                self._say_out(f"no connection within {timeout_s:g} s" if deadline.expired() else _cause(exc))
            raise (faults.no_connection(timeout_s) if deadline.expired() else faults.unreachable()) from None
        self._reached += 1
        if self._is_out:
            self._is_out = False
            log.warning("%s can be reached again", self._name)
        return connection

    def _say_out(self, cause: str) -> None:
        """Tell the operator, once for each outage, what clients are not told."""
        if not self._is_out and not self._is_closed:
            self._is_out = True
            log.error(
                "%s cannot be reached: %s (look at upstreams[].base_url and the network)", self._name, cause
            )

    async def close(self) -> None:
        """Close every connection, and wait until they are."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        self._is_closed = True
        self._kept.clear()
        for connection in self._open:
            connection.abort()
        if self._open:
            self._emptied = self._loop.create_future()
            await self._emptied

    async def _connect(self) -> Connection:
        link = await start_connection(
            await self._look_up(), happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1, loop=self._loop
        )
        try:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            _, connection = await self._loop.create_connection(
                functools.partial(Connection, self._endpoint, link, self._lost),
                sock=link,
                ssl=self._tls,
                server_hostname=self._host.rstrip(".") if self._tls is not None else None,
            )
        except BaseException:
            link.close()
            raise
        if not connection.is_lost:
            self._open.add(connection)
        if self._is_closed:
            connection.abort()
            raise ConnectionAbortedError
        return connection

    async def _look_up(self) -> Sequence[AddrInfoType]:
        async with self._looking_up:
            if self._loop.time() >= self._believed_until:
                self._addresses = await _addresses_of(self._host, self._port)
                self._believed_until = self._loop.time() + _NAMES_S
            return self._addresses

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._kept.pop(connection, None)
        if self._emptied is not None and not self._open and not self._emptied.done():
            self._emptied.set_result(None)

    def _sweep(self) -> None:
        """Close what nobody has used for long."""
        now = self._loop.time()
        for connection in [kept for kept in self._kept if kept.idle_until <= now]:
            del self._kept[connection]
            connection.abort()
        self._sweeping = self._loop.call_later(_IDLE_S, self._sweep) if self._kept else None


def _cause(exc: OSError | UnicodeError) -> str:
    if isinstance(exc, ssl.SSLError):  # its errno is OpenSSL's, and means something else to the system
        return getattr(exc, "verify_message", "") or exc.reason or str(exc)
    if isinstance(exc, OSError) and exc.errno is not None and exc.errno > 0:
        return os.strerror(exc.errno)
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or "it closed the connection"


async def _addresses_of(host: str, port: int) -> Sequence[AddrInfoType]:
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)


@functools.cache
def _default_context(checks: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not checks:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _context(tls: ssl.SSLContext | bool) -> ssl.SSLContext:
    return _default_context(tls) if isinstance(tls, bool) else tls
