"""Who asks: the principal of a request, and the headers that told it and go no further.

Every header is read once, and one that is there twice is refused: this door and the provider could
each believe another copy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple, Protocol, runtime_checkable

from proxy.model import Principal

OWN_HEADER = "x-callgate-key"
"""The header that carries a key of Callgate's own beside the provider's."""
PROVIDER_HEADERS = ("authorization", "x-api-key", "api-key")
"""The headers in which providers take their keys."""

MAX_KEY = 8192
NOTHING: frozenset[str] = frozenset()

# Stripped even where no key file is read: a key of Callgate's own is no business of a provider.
_OWN = frozenset({OWN_HEADER})


class Unidentified(Exception):
    """Nobody was recognised (401), or the request names its sender in two ways (400).

    The message is for the client: it says how to be recognised, and nothing of who would be. ``error`` is
    RFC 6750's word for what is wrong with a credential that was given.
    """

    def __init__(self, message: str, status: int = 401, error: str = "") -> None:
        super().__init__(message)
        self.status, self.error = status, error

    @property
    def headers(self) -> Mapping[str, str]:
        """What an answer with this status must say beside the message (RFC 9110 11.6.1, RFC 6750 3)."""
        if self.status != 401:
            return {}
        error = f', error="{self.error}"' if self.error else ""
        return {"WWW-Authenticate": f'Bearer realm="callgate"{error}'}


class Undecided(Unidentified):
    """It cannot be told yet: the keys that a credential is checked with are being read (503)."""

    def __init__(self, message: str, looked_up: asyncio.Task[None] | None) -> None:
        super().__init__(message, 503)
        self._looked_up = looked_up

    @property
    def headers(self) -> Mapping[str, str]:
        """When to ask again (RFC 9110 10.2.3)."""
        return {"Retry-After": "1"}

    async def settled(self) -> None:
        """Wait until they were read, or could not be."""
        if self._looked_up is not None:
            # Who leaves while waiting does not stop what others wait for.
            await asyncio.wait({self._looked_up})


class Recognised(NamedTuple):
    """Who asks, and the headers, in lower case, that must not be sent on to the provider."""

    principal: Principal
    consumed: frozenset[str]


class Headers(Protocol):
    """A request's headers, whatever their case: multidict's ``CIMultiDictProxy`` is one."""

    def getall(self, key: str, default: tuple[()], /) -> Sequence[str] | tuple[()]:
        """Every value of a header, in order."""
        ...


class Recogniser(Protocol):
    """One way to tell who asks."""

    reads: tuple[str, ...]
    """The headers that it reads."""
    strips: frozenset[str]
    """Those that are never sent on, whoever sent them and whoever is recognised."""
    way: str
    """What a client can do to be recognised; empty where there is nothing to tell."""

    def recognise(self, headers: Mapping[str, str], peer: str | None) -> Recognised | None:
        """The principal, or None for the next way to try; ``Unidentified`` where none may be tried."""
        ...


@runtime_checkable
class Secretive(Protocol):
    """A way whose credentials are Callgate's own, and no business of the provider."""

    def own(self, headers: Mapping[str, str]) -> frozenset[str]:
        """The headers that hold such a credential."""
        ...


class Identity:
    """Asks the ways in their order; the first that recognises a request names its principal."""

    def __init__(self, recognisers: Iterable[Recogniser]) -> None:
        self.recognisers = tuple(recognisers)
        self._reads = tuple(dict.fromkeys(name for way in self.recognisers for name in way.reads))
        self._strips = _OWN.union(*(way.strips for way in self.recognisers))
        self._secretive = tuple(way for way in self.recognisers if isinstance(way, Secretive))

    def identify(self, headers: Headers, peer: str | None) -> Recognised:
        """The principal of a request from the address ``peer``; raises ``Unidentified``."""
        values = self._values(headers)
        for recogniser in self.recognisers:
            if found := recogniser.recognise(values, peer):
                consumed = self._strips | found.consumed
                for way in self._secretive:
                    if way is not recogniser:  # another way was asked first, and recognised the request
                        consumed |= way.own(values)
                return Recognised(found.principal, consumed)
        raise Unidentified(self._ways())

    def _values(self, headers: Headers) -> dict[str, str]:
        values: dict[str, str] = {}
        for name in self._reads:
            if given := headers.getall(name, ()):
                if len(given) > 1:
                    raise Unidentified(f"The header {name} is there twice. Send it once.", 400)
                values[name] = given[0]
        return values

    def _ways(self) -> str:
        ways = dict.fromkeys(way for recogniser in self.recognisers if (way := recogniser.way))
        said = ", or ".join(way[:1].lower() + way[1:] if nth else way for nth, way in enumerate(ways))
        return f"You were not recognised. {said or 'This service has to be told of you'}."


def digest_of(text: str) -> str:
    """SHA-256 in hex, as key files hold it."""
    # Headers that are not UTF-8 arrive with surrogates in place of their bytes.
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def token_in(name: str, value: str) -> str:
    """The credential in a header: all of it, but of ``authorization`` what follows ``Bearer`` (RFC 6750 2.1).

    A value without a scheme counts too; one with another scheme holds nothing.
    """
    if name != "authorization":
        return value
    scheme, space, token = value.partition(" ")
    if not space:
        return "" if scheme.lower() == "bearer" else scheme
    return token.strip() if scheme.lower() == "bearer" else ""
