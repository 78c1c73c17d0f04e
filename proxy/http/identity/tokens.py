"""Who asks, by a signed token of an identity provider (JWT: RFC 7519, checked as RFC 8725 asks)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

import jwt
from cachetools import LRUCache

from proxy.http.identity.claims import Claims, Unfit, timely
from proxy.http.identity.issuer import Keys
from proxy.http.identity.jose import Malformed, Unverified, read_token
from proxy.http.identity.jwks import KeySet
from proxy.http.identity.recognising import (
    MAX_KEY,
    NOTHING,
    PROVIDER_HEADERS,
    Recognised,
    Undecided,
    Unidentified,
    token_in,
)

if TYPE_CHECKING:
    from jwt.types import Options

_MAX_KNOWN = 1024
_MAX_PIECES = 4
_BETWEEN = re.compile(r"[^A-Za-z0-9_.-]+")
_UNFIT: Mapping[type[Exception], str] = {
    jwt.InvalidAudienceError: "is meant for another audience (aud)",
    jwt.InvalidIssuerError: "is of another issuer (iss)",
    jwt.MissingRequiredClaimError: "lacks a claim that it needs (exp, aud, iss)",
}
# Times are compared here, by the clock that also ends what is remembered.
_OPTIONS: Options = {
    "require": ["exp", "aud"],
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}

_CLAIMS = Claims()


class Tokens:
    """Tokens of one issuer, from one header.

    A token that is of the issuer, by what it says or by its signature, is recognised or refused: it never
    reaches the ways that are asked later. One of another issuer is theirs.
    """

    def __init__(
        self,
        keys: Keys,
        audiences: Iterable[str],
        issuer: str | None = None,
        others: Iterable[str] = (),
        claims: Claims = _CLAIMS,
        leeway_s: float = 30.0,
        header: str = "authorization",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``keys`` hold those of the algorithms that are accepted; ``leeway_s`` is how far clocks differ.

        ``others`` are issuers that another way is for: some share their keys with this one.
        """
        self.keys = keys
        shared = header == "authorization"
        self.reads: tuple[str, ...] = PROVIDER_HEADERS if shared else (header,)
        # What is in a header that only tokens are sent in is no business of a provider.
        self._consumed = frozenset({header})
        self.strips = NOTHING if shared else self._consumed
        shown = "Authorization: Bearer TOKEN" if shared else f"{header}: TOKEN"
        self.way = f"Send a token of your identity provider as '{shown}'"
        self._header, self._audiences, self._issuer = header, frozenset(audiences), issuer
        self._others = frozenset(others)
        self._claims, self._leeway_s, self._clock = claims, leeway_s, clock
        # Subjects are unique within an issuer, and no issuer may name another's.
        self._kind = f"jwt {quote(issuer)}" if issuer is not None else "jwt"
        self._known: LRUCache[bytes, tuple[Recognised, float]] = LRUCache(_MAX_KNOWN)
        self._known_by: KeySet | None = None

    def recognise(self, headers: Mapping[str, str], peer: str | None) -> Recognised | None:
        """The token's holder; raises ``Undecided`` where the issuer's keys have to be read first."""
        for name in self.reads:
            # A client that sends every key so would else hand the token to the provider.
            if name != self._header and "." in headers.get(name, "") and self._is_ours(headers[name]):
                raise Unidentified(f"The token is in {name}. {self.way}.", error="invalid_token")
        if "." not in (value := headers.get(self._header, "")):
            return None
        found = self._found(token_in("authorization", value))
        # In quotes, behind another scheme or a word too many, it would go on to the provider.
        if found is None and self._is_ours(value):
            raise Unidentified(f"The token cannot be read. {self.way}.", error="invalid_token")
        return found

    def _found(self, token: str) -> Recognised | None:
        """The holder of a token, None where it is none of ours; raises ``Unidentified``."""
        keys, now_s = self.keys.keys, self._clock()
        if keys is not self._known_by:  # a key that was withdrawn takes what it signed with it
            self._known.clear()
            self._known_by = keys
        digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
        if (known := self._known.get(digest)) is not None and now_s < known[1]:
            return known[0]
        try:
            found = self._checked(token, keys, now_s)
        except (Malformed, Unfit) as exc:
            _refuse(str(exc))
        if found is not None:
            self._known[digest] = found
        return found[0] if found is not None else None

    def own(self, headers: Mapping[str, str]) -> frozenset[str]:
        """The headers that hold a token that says it is of the issuer."""
        given = {name: headers[name] for name in self.reads if "." in headers.get(name, "")}
        return frozenset(name for name, value in given.items() if self._is_ours(value))

    def _is_ours(self, value: str) -> bool:
        """Whether a token of the issuer is in a header's value, whatever stands around it."""
        tokens = [text for piece in _BETWEEN.split(value) if (text := piece.strip(".")).count(".") == 2]
        return any(map(self._names_us, tokens[:_MAX_PIECES]))

    def _names_us(self, token: str) -> bool:
        try:
            read = read_token(token)
        except Malformed:
            return False
        return read is not None and self._says_ours(read)

    def _checked(self, token: str, keys: KeySet | None, now_s: float) -> tuple[Recognised, float] | None:
        """The holder and until when; None for another's; raises ``Malformed``, ``Unfit``, ``Undecided``."""
        if len(token) > MAX_KEY:
            raise Malformed(f"is longer than {MAX_KEY} characters")
        if (read := read_token(token)) is None or read.issuer in self._others:
            return None
        ours = self._says_ours(read)
        if keys is None:
            if not ours and self._issuer is not None:
                return None
            raise Undecided(
                "The keys that tokens are checked with cannot be read now. Try again.", self.keys.look_up()
            )
        if ours and (fault := read.fault or self._unknown(read, keys)):
            raise Malformed(fault)
        claims = None if read.fault else self._verified(token, read, keys)
        if claims is None:
            if ours:
                raise Malformed("is not signed with a key of its issuer")
            return None
        until_s = timely(claims, now_s, self._leeway_s)
        return Recognised(self._claims.principal(claims, self._kind), self._consumed), until_s

    def _says_ours(self, read: Unverified) -> bool:
        if self._issuer is not None:
            return read.issuer == self._issuer
        keys = self.keys.keys
        return bool(read.audiences & self._audiences) or (
            keys is not None and read.key_id is not None and read.key_id in keys.ids
        )

    def _unknown(self, read: Unverified, keys: KeySet) -> str:
        """Why no key can check it, empty where one might; raises ``Undecided`` where it may be a new one."""
        if not keys.checks(read.algorithm):
            return "is signed in a way that is not accepted here (alg)"
        if read.key_id in keys.ids or keys.find(read.key_id, read.algorithm):
            return ""
        if (looked_up := self.keys.look_up()) is not None:
            raise Undecided("The keys of the token's issuer are being read. Try again.", looked_up)
        return ""

    def _verified(self, token: str, read: Unverified, keys: KeySet) -> Mapping[str, Any] | None:
        """The claims, where one of the keys made the signature; raises ``Unfit`` for those of others."""
        audience, issuer = sorted(self._audiences), self._issuer
        for key in keys.find(read.key_id, read.algorithm):
            try:
                jwt.decode(token, key, [read.algorithm], audience=audience, issuer=issuer, options=_OPTIONS)
            except (jwt.DecodeError, jwt.InvalidAlgorithmError, jwt.InvalidKeyError):
                continue
            except jwt.InvalidTokenError as exc:
                raise Unfit(_UNFIT.get(type(exc), "holds a claim that cannot be read")) from None
            return read.claims
        return None


def _refuse(why: str) -> NoReturn:
    raise Unidentified(f"The token {why}.", error="invalid_token")
