"""What a signed token says of itself, before anyone has checked its signature (RFC 7515, RFC 7519)."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Any, NamedTuple

from proxy.model import Fault, loads

# RFC 7515 2: without padding, and nothing in between.
_SEGMENT = re.compile(rb"[A-Za-z0-9_-]+")
# RFC 8725 3.11: a token made for something else (a logout, a proof of possession) does not say who asks.
_TYPES = frozenset({"jwt", "at+jwt"})


class Malformed(ValueError):
    """A signed token that nobody could read; the message is for the client."""


class Unverified(NamedTuple):
    """The parts of a token that tell how to check it. Nothing of it may be believed."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    @property
    def algorithm(self) -> str:
        """``alg``; empty where there is none."""
        return _text(self.header.get("alg"))

    @property
    def key_id(self) -> str | None:
        """``kid``: which of the issuer's keys signed it."""
        return _text(self.header.get("kid")) if "kid" in self.header else None

    @property
    def issuer(self) -> str:
        """``iss``; empty where there is none."""
        return _text(self.claims.get("iss"))

    @property
    def audiences(self) -> frozenset[str]:
        """``aud``, whether it is one or several."""
        given = self.claims.get("aud")
        each = given if isinstance(given, list) else [given]
        return frozenset(one for one in each if isinstance(one, str))

    @property
    def fault(self) -> str:
        """Why the header cannot be accepted, whoever signed it; empty where it can.

        Keys that a header brings along or points to (``jwk``, ``jku``, ``x5c``, ``x5u``) are not looked at.
        """
        if "crit" in self.header or "b64" in self.header:
            return "has extensions (crit) that are not known here"
        kind = _text(self.header.get("typ", "JWT")).lower().removeprefix("application/")
        if kind not in _TYPES:
            return "is not an access token (typ)"
        return ""


def read_token(token: str) -> Unverified | None:
    """What a signed token says; None for what is none; raises ``Malformed`` for one that is broken."""
    first, *others = token.encode("utf-8", "surrogatepass").split(b".")
    head = _decoded(first)
    if head is None or not head.lstrip().startswith(b"{"):
        return None
    header = _object(head, "header")
    if "enc" in header:  # encrypted (RFC 7516): not for us to read
        return None
    if len(others) != 2 or not _SEGMENT.fullmatch(others[1]):
        raise Malformed("does not have three parts")
    return Unverified(header, _object(_decoded(others[0]), "claims"))


def _object(raw: bytes | None, part: str) -> Mapping[str, Any]:
    try:
        value = loads(raw) if raw is not None else None
    except Fault:
        value = None
    if not isinstance(value, dict):
        raise Malformed(f"has {part} that cannot be read")
    return value


def _decoded(segment: bytes) -> bytes | None:
    if not _SEGMENT.fullmatch(segment) or len(segment) % 4 == 1:
        return None
    return urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
