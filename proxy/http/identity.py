"""Who asks: the principal of a request, and the headers that told it and go no further.

Every header is read once, and one that is there twice is refused: this door and the provider could
each believe another copy. Nothing here keeps a key, only digests of keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import NamedTuple, NoReturn, Protocol

from proxy.http.key_file import IdentityFault, is_name, read_key_file
from proxy.model import Principal

__all__ = [
    "Anonymous",
    "ApiKeys",
    "Identity",
    "IdentityFault",
    "Passthrough",
    "Recognised",
    "Recogniser",
    "TrustedHeaders",
    "Unidentified",
    "jwt",
]

OWN_HEADER = "x-callgate-key"
"""The header that carries a key of Callgate's own beside the provider's."""
PROVIDER_HEADERS = ("authorization", "x-api-key", "api-key")
"""The headers in which providers take their keys."""

MAX_ROLES = 64
MAX_KEY = 8192

_NOTHING: frozenset[str] = frozenset()
# Stripped even where no key file is read: a key of Callgate's own is no business of a provider.
_OWN = frozenset({OWN_HEADER})


class Unidentified(Exception):
    """Nobody was recognised (401), or the request names its sender in two ways (400).

    The message is for the client: it says how to be recognised, and nothing of who would be.
    """

    def __init__(self, message: str, status: int = 401) -> None:
        super().__init__(message)
        self.status = status


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


class Identity:
    """Asks the ways in their order; the first that recognises a request names its principal."""

    def __init__(self, recognisers: Iterable[Recogniser]) -> None:
        self._recognisers = tuple(recognisers)
        self._reads = tuple(dict.fromkeys(name for way in self._recognisers for name in way.reads))
        self._strips = _OWN.union(*(way.strips for way in self._recognisers))
        self._keys = tuple(way for way in self._recognisers if isinstance(way, ApiKeys))

    def identify(self, headers: Headers, peer: str | None) -> Recognised:
        """The principal of a request from the address ``peer``; raises ``Unidentified``."""
        values = self._values(headers)
        for recogniser in self._recognisers:
            if found := recogniser.recognise(values, peer):
                consumed = self._strips | found.consumed
                for keys in self._keys:
                    if keys is not recogniser:  # another way was asked first, and recognised the request
                        consumed |= keys.own(values)
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
        ways = [way for recogniser in self._recognisers if (way := recogniser.way)]
        return f"You were not recognised. {' or '.join(ways) or 'This service has to be told of you'}."


class ApiKeys:
    """Callgate's own keys, known by their SHA-256 from a YAML file: digest -> {id, roles, tenant}.

    Digests are looked up in a table: what the time of a look-up could tell is a part of the digest of a
    key that the asker chose, and no key can be worked out of it.
    """

    reads: tuple[str, ...] = (OWN_HEADER, *PROVIDER_HEADERS)
    strips = _OWN
    way = f"Send a Callgate API key as 'Authorization: Bearer KEY' or '{OWN_HEADER}: KEY'"

    def __init__(self, path: Path) -> None:
        """Read the file; raises ``IdentityFault`` naming every fault in it."""
        self._path = path
        self._principals = read_key_file(path)

    def reload(self) -> None:
        """Read the file again; with a fault in it, the keys that were read before stay in force."""
        self._principals = read_key_file(self._path)

    def recognise(self, headers: Mapping[str, str], peer: str | None) -> Recognised | None:
        """The key's owner; a header that holds a key of Callgate's own is consumed."""
        owner: Principal | None = None
        consumed: list[str] = []
        for name, found in self._owners(headers):
            if found is None:
                if name == OWN_HEADER:
                    raise Unidentified(f"The key in {OWN_HEADER} is not known. {self.way}.")
                continue
            if owner is not None and owner != found:
                raise Unidentified("The request holds the keys of two principals. Send one.", 400)
            owner = found
            consumed.append(name)
        return Recognised(owner, frozenset(consumed)) if owner else None

    def own(self, headers: Mapping[str, str]) -> frozenset[str]:
        """The headers that hold a key of Callgate's own, which is no business of the provider."""
        return frozenset(name for name, owner in self._owners(headers) if owner)

    def _owners(self, headers: Mapping[str, str]) -> Iterator[tuple[str, Principal | None]]:
        for name in self.reads:
            if value := headers.get(name):
                token = _token(value) if name == "authorization" else value
                yield name, self._principals.get(_digest(token))


class TrustedHeaders:
    """Headers set by an authenticating proxy, believed only from ``trusted`` networks (CIDR)."""

    way = "Come through the proxy that signs you in"

    def __init__(self, id: str, roles: str | None, tenant: str | None, trusted: Iterable[str]) -> None:
        """The headers that name id, roles and tenant; raises ``ValueError`` for a network that is none."""
        self._networks = tuple(ip_network(network) for network in trusted)
        self._id, self._roles, self._tenant = (name.lower() if name else "" for name in (id, roles, tenant))
        self.reads = tuple(name for name in (self._id, self._roles, self._tenant) if name)
        self.strips = frozenset(self.reads)
        # Peers are few and users come again, and neither's name is a secret.
        self._trusts = lru_cache(maxsize=1024)(lambda peer: _within(peer, self._networks))
        self._named = lru_cache(maxsize=1024)(self._read)

    def recognise(self, headers: Mapping[str, str], peer: str | None) -> Recognised | None:
        """Whom the proxy in front names; nobody, where another peer sent the headers."""
        id = headers.get(self._id, "")
        if not id or peer is None or not self._trusts(peer):
            return None
        return self._named(id, headers.get(self._roles, ""), headers.get(self._tenant, ""))

    def _read(self, id: str, roles: str, tenant: str) -> Recognised:
        for name, value in ((self._id, id), (self._tenant, tenant)):
            # A comma is how proxies join a client's header with their own (RFC 9110 5.3).
            if value and ("," in value or not is_name(value)):
                raise Unidentified(f"The header {name} does not hold one name.", 400)
        return Recognised(Principal(id, _roles(self._roles, roles), tenant, kind="header"), _NOTHING)


class Passthrough:
    """The digest of the provider's key that the client sends; the key itself is the provider's to check."""

    reads: tuple[str, ...] = PROVIDER_HEADERS
    strips = _NOTHING
    way = "Send the provider's API key"

    def recognise(self, headers: Mapping[str, str], peer: str | None) -> Recognised | None:
        """The key's digest as a principal; two different keys are refused: the provider would take one."""
        key = ""
        for name in self.reads:
            if value := headers.get(name):
                token = _token(value) if name == "authorization" else value
                # What the provider might read as the same key must not make another principal.
                if not _is_key(token):
                    raise Unidentified(f"The header {name} does not hold one key. {self.way}.", 400)
                if key and token != key:
                    raise Unidentified("The request holds two provider keys. Send one.", 400)
                key = token
        return _holder(_digest(key)[:16]) if key else None


class Anonymous:
    """Everyone, as one principal."""

    reads: tuple[str, ...] = ()
    strips = _NOTHING
    way = ""

    def __init__(self, roles: Iterable[str] = (), tenant: str = "") -> None:
        self._everyone = Recognised(Principal("anonymous", tuple(roles), tenant, kind="anonymous"), _NOTHING)

    def recognise(self, headers: Mapping[str, str], peer: str | None) -> Recognised:
        """The same principal for every request."""
        return self._everyone


def jwt() -> NoReturn:
    """Signed tokens are not recognised yet: raises ``IdentityFault`` saying what is missing."""
    problem = "this version comes without a library that checks signatures (PyJWT with cryptography)"
    cure = "use kind header behind a proxy that checks tokens, or kind api_keys"
    raise IdentityFault([f"identity: kind jwt cannot be served: {problem}; {cure}"])


@lru_cache(maxsize=1024)
def _holder(digest: str) -> Recognised:
    return Recognised(Principal(f"key-{digest}", kind="passthrough"), _NOTHING)


def _digest(text: str) -> str:
    # Headers that are not UTF-8 arrive with surrogates in place of their bytes.
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _token(value: str) -> str:
    """The token of ``Authorization: Bearer`` (RFC 6750 2.1), or of one without a scheme; else nothing."""
    scheme, space, token = value.partition(" ")
    if not space:
        return "" if scheme.lower() == "bearer" else scheme
    return token.strip() if scheme.lower() == "bearer" else ""


def _is_key(token: str) -> bool:
    return 0 < len(token) <= MAX_KEY and token.isascii() and token.isprintable() and " " not in token


def _roles(header: str, value: str) -> tuple[str, ...]:
    roles = tuple(dict.fromkeys(value.replace(",", " ").split()))
    if len(roles) > MAX_ROLES or not all(map(is_name, roles)):
        raise Unidentified(f"The header {header} does not hold up to {MAX_ROLES} names of roles.", 400)
    return roles


def _within(peer: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
