"""The providers, over aiohttp. A request is sent once: who sends a POST again may act twice.

That holds too where the provider closes a kept connection just as a request is written to it: whether it
was read cannot be known, so the client gets a 502 and decides. Only GET and DELETE, which are idempotent
(RFC 9110 9.2.2), are sent again there by aiohttp. A connection that was closed earlier is not used at all.
"""

from __future__ import annotations

import asyncio
import io
import re
import ssl
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any

import aiohttp
from yarl import URL

from proxy.http import azure
from proxy.http.headers import CREDENTIALS, for_client, without
from proxy.ports import Ask, Headers, Reply, UpstreamFailed

# aiohttp warns of, and the loop would feel, one write of a larger body.
_STREAMED_ABOVE_BYTES = 2**20
_DRAIN_S = 0.25
# Words about an error, not an answer: more than this is neither.
_MAX_ERROR_BYTES = 4 * 2**20
# Both come from clients: what is remembered of them is bounded, in number and in size.
_MAX_KNOWN = 1024
_MAX_KNOWN_CHARS = 256
# What aiohttp undoes by itself.
_ENCODINGS = frozenset({"gzip", "deflate"})


@dataclass(frozen=True)
class Endpoint:
    """One provider."""

    name: str
    base_url: str
    """What ``/chat/completions`` is appended to."""
    models: tuple[str, ...] = ("*",)
    """Globs over the models that it serves."""
    key: str | None = field(default=None, repr=False)
    """The provider's key; None sends on the client's own."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    connect_timeout_s: float = 10.0
    first_byte_timeout_s: float = 300.0
    idle_timeout_s: float = 120.0
    tls: ssl.SSLContext | bool = True

    def address(self, path: str) -> str:
        """The URL of a path below ``/v1``, as the SDK that knows the path would build it."""
        root = self.base_url.rstrip("/").removesuffix("/v1")
        if path.startswith(azure.PREFIX):
            return root.removesuffix("/openai") + path
        # Anthropic's SDK appends the version to any base URL, OpenAI's takes it as part of one.
        return f"{root}/v1{path}" if _is_messages(path) else self.base_url + path

    def credential(self, path: str, headers: Headers) -> tuple[str, str]:
        """The header, in lower case, in which the API behind a path takes the operator's key."""
        if path.startswith(azure.PREFIX):
            return "api-key", f"{self.key}"
        if _is_messages(path) or any(name.lower() == "anthropic-version" for name, _ in headers):
            return "x-api-key", f"{self.key}"
        return "authorization", f"Bearer {self.key}"

    def serves(self, model: str) -> bool:
        """Whether one of the globs matches."""
        return any(fnmatchcase(model, glob) for glob in self.models)


def _is_messages(path: str) -> bool:
    return re.match(r"/messages\b", path) is not None


class HttpUpstream:
    """Sends each request to the first provider that serves its model."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = tuple(endpoints)
        self._by_model: dict[str, Endpoint] = {}
        self._urls: dict[tuple[str, str], URL] = {}
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the connection pool; on the loop that serves."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
            # One user's cookies must never go out with another's request.
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def ask(self, ask: Ask) -> AbstractAsyncContextManager[Reply]:
        """Send a judged route's request; its answer is decoded."""
        endpoint = self.endpoint(ask.model)
        return _Sent(self, endpoint, "POST", ask.path, ask.headers, ask.body, decode=True)

    def send(
        self, method: str, path: str, headers: Headers, body: Any, model: str | None
    ) -> AbstractAsyncContextManager[HttpReply]:
        """Send a passed route's request; its answer's bytes stay as they are."""
        endpoint = self._endpoints[0] if model is None else self.endpoint(model)
        return _Sent(self, endpoint, method, path, headers, body, decode=False)

    def endpoint(self, model: str) -> Endpoint:
        """The provider of a model; raises ``UpstreamFailed`` (404) where there is none."""
        known = self._by_model.get(model)
        if known is None:
            known = next((e for e in self._endpoints if e.serves(model)), None)
            if known is None:
                message = f"No upstream serves the model {model[:200]!r}; see upstreams[].models."
                raise UpstreamFailed(404, "model_not_found", message)
            if len(model) <= _MAX_KNOWN_CHARS and len(self._by_model) < _MAX_KNOWN:
                self._by_model[model] = known
        return known

    def url(self, endpoint: Endpoint, path: str) -> URL:
        """The provider's URL for a path below its base, percent-encoded as it is sent."""
        key = (endpoint.name, path)
        url = self._urls.get(key)
        if url is None:
            url = URL(endpoint.address(path), encoded=True)
            if len(path) <= _MAX_KNOWN_CHARS and "?" not in path and len(self._urls) < _MAX_KNOWN:
                self._urls[key] = url
        return url

    @property
    def session(self) -> aiohttp.ClientSession:
        """The connection pool."""
        assert self._session is not None, "start() comes first"
        return self._session


class _Sent:
    """One request on its way: entering sends it and waits for the head of the answer."""

    def __init__(
        self,
        upstream: HttpUpstream,
        endpoint: Endpoint,
        method: str,
        path: str,
        headers: Headers,
        body: Any,
        decode: bool,
    ) -> None:
        self._upstream, self._endpoint, self._method, self._path = upstream, endpoint, method, path
        self._headers = _request_headers(endpoint, path, headers, decode)
        self._body, self._decode = body, decode
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> HttpReply:
        endpoint = self._endpoint
        body = self._body
        if isinstance(body, bytes) and len(body) > _STREAMED_ABOVE_BYTES:
            body = io.BytesIO(body)
        try:
            async with asyncio.timeout(endpoint.first_byte_timeout_s):
                response = await self._upstream.session.request(
                    self._method,
                    self._upstream.url(endpoint, self._path),
                    data=body,
                    headers=self._headers,
                    # A client that followed a redirect would leave Callgate behind; so does Callgate not.
                    allow_redirects=False,
                    auto_decompress=self._decode,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=endpoint.connect_timeout_s),
                    ssl=endpoint.tls,
                )
        except aiohttp.ConnectionTimeoutError:
            message = f"No connection to the provider within {endpoint.connect_timeout_s:g} s."
            raise UpstreamFailed(504, "upstream_timeout", message) from None
        except TimeoutError:
            message = f"The provider did not begin to answer within {endpoint.first_byte_timeout_s:g} s."
            raise UpstreamFailed(504, "upstream_timeout", message) from None
        except aiohttp.ClientConnectorError:
            raise UpstreamFailed(502, "upstream_unreachable", "The provider cannot be reached.") from None
        except aiohttp.ClientResponseError:
            message = "The provider's answer is not valid HTTP."
            raise UpstreamFailed(502, "upstream_malformed", message) from None
        except aiohttp.ClientError:
            message = (
                "The connection to the provider broke before it answered. The request was not sent again."
            )
            raise UpstreamFailed(502, "upstream_broken", message) from None
        self._response = response
        try:
            _check_head(response, self._decode)
        except UpstreamFailed:
            response.close()
            raise
        return HttpReply(response, endpoint.idle_timeout_s, self._decode)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._response is not None:
            # An answer that was not read to its end takes its connection with it: the provider stops.
            self._response.release()


def _check_head(response: aiohttp.ClientResponse, decode: bool) -> None:
    """Refuse an answer that cannot be carried as one; raises ``UpstreamFailed``."""
    status = response.status
    if status < 200:
        message = f"The provider wants to speak another protocol ({status})."
        raise UpstreamFailed(502, "upstream_malformed", message)
    if 300 <= status < 400 and status != 304:
        message = f"The provider answered with a redirect ({status}); check upstreams[].base_url."
        raise UpstreamFailed(502, "upstream_redirect", message)
    encoding = ",".join(response.headers.getall("content-encoding", ())).strip().lower()
    if decode and encoding not in ("", "identity") and encoding not in _ENCODINGS:
        message = "The provider's answer has a content encoding that was not asked for and cannot be read."
        raise UpstreamFailed(502, "upstream_malformed", message)


def _request_headers(endpoint: Endpoint, path: str, headers: Headers, decode: bool) -> list[tuple[str, str]]:
    """What the provider is sent: the client's headers, and what the operator sets over them."""
    written = {name.lower(): value for name, value in endpoint.headers.items()}
    if endpoint.key is not None:
        name, value = endpoint.credential(path, headers)
        written.setdefault(name, value)
    if decode:
        written["accept-encoding"] = "identity"
    # With a key of the operator's own, in whichever header, no key of a client's goes beside it.
    replaced = written.keys() | (CREDENTIALS if CREDENTIALS & written.keys() else frozenset())
    return [*without(headers, replaced), *written.items()]


class HttpReply:
    """A provider's answer as its bytes arrive."""

    def __init__(self, response: aiohttp.ClientResponse, idle_timeout_s: float, decode: bool) -> None:
        self._response = response
        self._idle_timeout_s = idle_timeout_s
        self.status = response.status
        self.headers = for_client(response.headers, decode)
        # A judged answer has its own bounds where it is read; a passed one is never held.
        self._max_bytes = _MAX_ERROR_BYTES if decode and self.status >= 300 else sys.maxsize
        self.length = None if decode else response.content_length
        """How many bytes the body has, where the provider said so and they stay as they are."""
        self.media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives; raises ``UpstreamFailed`` when it is cut or stalls."""
        content = self._response.content
        watch = _Watch(self._response, self._idle_timeout_s)
        left = self._max_bytes
        try:
            while True:
                watch.begin()
                chunk = await content.readany()
                watch.end()
                if not chunk:
                    return
                left -= len(chunk)
                if left < 0:
                    raise UpstreamFailed(502, "upstream_malformed", "The provider's error is too large.")
                yield chunk
        except (aiohttp.ClientError, OSError):
            if watch.stalled:
                message = (
                    f"The provider sent nothing for {self._idle_timeout_s:g} s in the middle of its answer."
                )
                raise UpstreamFailed(504, "upstream_stalled", message) from None
            message = "The provider's answer was cut off. No tool call was released."
            raise UpstreamFailed(502, "upstream_incomplete", message) from None
        finally:
            watch.cancel()

    async def drain(self) -> None:
        """Read to the end of the body, if it is about to come, so that the connection can serve again."""
        content = self._response.content
        if content.at_eof():
            return
        try:
            async with asyncio.timeout(_DRAIN_S):
                while not content.at_eof():
                    await content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError):
            self._response.close()


class _Watch:
    """One timer for a whole answer that closes it when the provider, and not the client, is silent."""

    def __init__(self, response: aiohttp.ClientResponse, idle_s: float) -> None:
        self.stalled = False
        self._response, self._idle_s = response, idle_s
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timer = self._loop.call_later(idle_s, self._look)

    def begin(self) -> None:
        self._since = self._loop.time()

    def end(self) -> None:
        self._since = None

    def _look(self) -> None:
        waited = 0.0 if self._since is None else self._loop.time() - self._since
        if waited >= self._idle_s:
            self.stalled = True
            self._response.close()
            # Wake the reader, which waits for bytes that will not come.
            self._response.content.set_exception(aiohttp.ServerDisconnectedError())
            return
        self._timer = self._loop.call_later(self._idle_s - waited, self._look)

    def cancel(self) -> None:
        self._timer.cancel()
