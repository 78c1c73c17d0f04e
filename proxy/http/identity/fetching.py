"""Where an issuer publishes its keys."""

from __future__ import annotations

import ssl
from typing import Protocol

import aiohttp

from proxy.http.identity.jwks import MAX_BYTES, KeySetFault

_TIMEOUT_S = 5.0
# Nothing is decoded: a few bytes could stand for more than memory holds.
_HEADERS = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}


class Fetch(Protocol):
    """Reads a published key set."""

    place: str
    """Where it is, in words."""

    async def __call__(self) -> bytes:
        """The text; raises ``KeySetFault``."""
        ...

    async def close(self) -> None:
        """Leave nothing open."""
        ...


class HttpKeys:
    """Keys that an issuer publishes at a URL. A redirect is not followed: it could lead anywhere."""

    def __init__(self, url: str, tls: ssl.SSLContext | bool = True, timeout_s: float = _TIMEOUT_S) -> None:
        self.place = url
        self._tls, self._timeout = tls, aiohttp.ClientTimeout(timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self) -> bytes:
        """The text; raises ``KeySetFault``."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout, headers=_HEADERS, auto_decompress=False
            )
        try:
            async with self._session.get(self.place, ssl=self._tls, allow_redirects=False) as answer:
                if 300 <= answer.status < 400:
                    raise KeySetFault(f"answers {answer.status} (name the address that it redirects to)")
                if answer.status != 200:
                    raise KeySetFault(f"answers {answer.status}")
                return await _bounded(answer.content)
        except TimeoutError:
            raise KeySetFault(f"does not answer within {self._timeout.total:g} s") from None
        except (aiohttp.ClientError, OSError) as exc:
            raise KeySetFault(f"cannot be read ({type(exc).__name__})") from None

    async def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    raw = bytearray()
    async for chunk in content.iter_any():
        raw += chunk
        if len(raw) > MAX_BYTES:
            raise KeySetFault(f"is longer than {MAX_BYTES} bytes")
    return bytes(raw)
