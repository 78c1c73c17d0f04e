"""A bundle at a URL, asked for as often as it may have changed (OPA's bundle service API)."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from proxy.engines.sources.bundles import Archive
from proxy.engines.sources.faults import PolicyFault
from proxy.engines.sources.signatures import Verification

FIRST_PAUSE_S = 1.0
_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_ETAG = 1024


class FetchFault(Exception):
    """The bundle did not come, with the reason for the operator."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bundle is asked for, and how."""

    url: str
    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | bool = True
    poll_s: float = 60.0
    timeout_s: float = 10.0
    max_bytes: int = 16 << 20

    @property
    def label(self) -> str:
        """What people know it by: without the query, which may hold a key."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"


class RemoteBundle:
    """The last bundle that came whole from one place; it is for others to judge what is in it."""

    def __init__(self, place: Place, verification: Verification | None = None) -> None:
        self.content: bytes | None = None
        """The archive; None until it has come once."""
        self.fault: str | None = f"{place.label}: has not been asked for yet"
        """Why it did not come when it was asked for last; None if it did."""
        self.place = place
        self._verification = verification
        self._etag: str | None = None
        self._session: aiohttp.ClientSession | None = None
        self._pause_s = 0.0

    async def start(self) -> None:
        """Open the connection pool; on the loop that fetches."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, ssl=self.place.tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            # As it is sent: an archive is compressed already, and what it unpacks to has a bound of its own.
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=self.place.timeout_s),
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def run(self, stop: asyncio.Event, changed: Callable[[RemoteBundle], Awaitable[None]]) -> None:
        """Ask again and again until ``stop``; ``changed`` is told of another bundle, and of another fault."""
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                await asyncio.wait({stopping}, timeout=self.delay_s())
                await self._ask_unless(stopping, changed)
        finally:
            stopping.cancel()

    async def _ask_unless(
        self, stopping: asyncio.Future[Any], changed: Callable[[RemoteBundle], Awaitable[None]]
    ) -> None:
        """Ask, but let nobody who stops wait for a slow server."""
        before, asking = self.fault, asyncio.ensure_future(self.refresh())
        await asyncio.wait({asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        elif asking.result() or self.fault != before:
            await changed(self)

    def delay_s(self) -> float:
        """Until the next question: not all replicas at once, and sooner again while there is no answer."""
        poll_s = self.place.poll_s
        if self.fault is None:
            self._pause_s = 0.0
            return random.uniform(0.9, 1.1) * poll_s  # noqa: S311 -- spreads load, keeps no secret
        self._pause_s = min(max(self._pause_s * 2, FIRST_PAUSE_S), poll_s)
        return random.uniform(0.5, 1.0) * self._pause_s  # noqa: S311

    async def refresh(self) -> bool:
        """Ask once; whether another bundle has come. Why none did stands in ``fault``."""
        try:
            content = await self._fetched()
        except (FetchFault, aiohttp.ClientError, OSError, ValueError) as exc:  # OSError: TimeoutError is one
            self.fault = f"{self.place.label}: {_worded(exc, self.place)}"
            return False
        self.fault = None
        if content is None or content == self.content:
            return False
        self.content = content
        return True

    def archive(self) -> Archive | None:
        """What came, to be read; None while nothing has."""
        if self.content is None:
            return None
        return Archive(self.place.label, self.content, self._verification)

    def forget(self) -> None:
        """Have the whole bundle sent again next time: the one that came cannot be used."""
        self._etag = None

    async def _fetched(self) -> bytes | None:
        """The archive; None where the one that came last is still current."""
        assert self._session is not None, "start() comes first"
        url, headers = URL(self.place.url, encoded=True), self._headers()
        for _ in range(_MAX_REDIRECTS):
            async with self._session.get(url, headers=headers, allow_redirects=False) as answer:
                if answer.status in _REDIRECTS:
                    url = _redirected(url, answer)
                    continue
                if answer.status == 304 and "If-None-Match" in headers:
                    return None
                return await self._taken(answer)
        raise FetchFault(f"leads on more than {_MAX_REDIRECTS} times")

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity", "Prefer": "modes=snapshot", "User-Agent": "callgate"}
        if self.place.token is not None:
            headers["Authorization"] = f"Bearer {self.place.token}"
        if self._etag is not None:
            headers["If-None-Match"] = self._etag
        return headers

    async def _taken(self, answer: aiohttp.ClientResponse) -> bytes:
        if answer.status != 200:
            raise FetchFault(f"the server answered {answer.status}{_cure(answer.status)}")
        content = bytearray()
        async for chunk in answer.content.iter_any():
            content += chunk
            if len(content) > self.place.max_bytes:
                raise FetchFault(f"larger than {self.place.max_bytes} bytes (policies.bundles[].max_bytes)")
        etag = answer.headers.get("ETag", "")
        # Only now: what was cut off on the way must be sent again.
        self._etag = etag if 0 < len(etag) <= _MAX_ETAG else None
        return bytes(content)


async def fetched(bundles: Sequence[RemoteBundle]) -> list[Archive]:
    """Each bundle, asked for once; raises ``PolicyFault`` naming each that did not come."""
    for bundle in bundles:
        await bundle.start()
    try:
        await asyncio.gather(*(bundle.refresh() for bundle in bundles))
    finally:
        for bundle in bundles:
            await bundle.close()
    if faults := [bundle.fault for bundle in bundles if bundle.fault is not None]:
        raise PolicyFault(faults)
    return [archive for bundle in bundles if (archive := bundle.archive()) is not None]


def _redirected(url: URL, answer: aiohttp.ClientResponse) -> URL:
    """Where the answer leads on to, on the same server: the token is for no other."""
    target = url.join(URL(answer.headers.get("Location", ""), encoded=True))
    if target.origin() != url.origin():
        raise FetchFault("leads on to another server: name that one, if it is trusted with the token")
    return target


def _cure(status: int) -> str:
    if status in (401, 403):
        return " (check policies.bundles[].token)"
    return " (check policies.bundles[].url)" if status in (404, 410) else ""


def _worded(exc: Exception, place: Place) -> str:
    if isinstance(exc, FetchFault):
        return str(exc)
    if isinstance(exc, TimeoutError):
        return f"did not come within {place.timeout_s:g} s"
    if isinstance(exc, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return "the server's certificate is not trusted (check policies.bundles[].ca_file)"
    if isinstance(exc, aiohttp.ClientConnectorError):
        number = exc.os_error.errno
        return f"cannot be reached ({os.strerror(number) if number else type(exc.os_error).__name__})"
    return f"did not come whole ({type(exc).__name__})"
