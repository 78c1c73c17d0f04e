"""An identity provider of the tests' own: keys, tokens however wrong, and a server that publishes keys."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proxy.http.identity.jwks import KeySet

ISSUER, AUDIENCE = "https://idp.example.com", "callgate"
NOW = 1_900_000_000
ALGORITHMS = ("ES256", "RS256")
_CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


@dataclass(frozen=True)
class Key:
    """A private key of the issuer."""

    id: str
    algorithm: str
    private: Any

    def jwk(self, **members: Any) -> dict[str, Any]:
        """The public half as it is published; a member of None is left out."""
        made = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.private.public_key(), as_dict=True)
        jwk = {"kid": self.id, "alg": self.algorithm, "use": "sig"} | made | members
        return {name: value for name, value in jwk.items() if value is not None}

    @property
    def pem(self) -> bytes:
        """The public half as the text that an attacker would sign with."""
        public: bytes = self.private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        return public


@cache
def key(id: str = "k1", algorithm: str = "ES256", bits: int = 2048) -> Key:
    """A key; the same one whenever it is asked for, for an RSA key takes its time."""
    if algorithm in _CURVES:
        return Key(id, algorithm, ec.generate_private_key(_CURVES[algorithm]()))
    if algorithm == "EdDSA":
        return Key(id, algorithm, ed25519.Ed25519PrivateKey.generate())
    return Key(id, algorithm, rsa.generate_private_key(65537, bits))


def published(*keys: Key | Mapping[str, Any]) -> bytes:
    """A JWK Set."""
    return json.dumps({"keys": [one.jwk() if isinstance(one, Key) else one for one in keys]}).encode()


def claims(**members: Any) -> dict[str, Any]:
    """What a good token claims, from NOW on for a minute; a member of None is left out."""
    base = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": NOW, "exp": NOW + 60, "roles": ["dev"]}
    return {name: value for name, value in (base | members).items() if value is not None}


def segment(part: Mapping[str, Any] | bytes) -> str:
    """A part of a token."""
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token(
    by: Key | None = None,
    claimed: Mapping[str, Any] | bytes | None = None,
    header: Mapping[str, Any] | bytes | None = None,
    **members: Any,
) -> str:
    """A token as its issuer would sign it; with other claims, or another header, beside what is asked."""
    by = by or key()
    head: Any = {"alg": by.algorithm, "kid": by.id, "typ": "JWT"}
    if isinstance(header, bytes):
        head = header
    else:
        head = {name: value for name, value in (head | dict(header or {})).items() if value is not None}
    said = f"{segment(head)}.{segment(claims(**members) if claimed is None else claimed)}"
    signature = jwt.get_algorithm_by_name(by.algorithm).sign(said.encode(), by.private)
    return f"{said}.{segment(signature)}"


def unsigned(by: Key, secret: bytes, algorithm: str) -> str:
    """A token whose signature is an HMAC under what everyone knows."""
    said = f"{segment({'alg': algorithm, 'kid': by.id})}.{segment(claims())}"
    hmac = jwt.get_algorithm_by_name(algorithm)
    return f"{said}.{segment(hmac.sign(said.encode(), secret))}"


@dataclass
class Known:
    """Keys as they are known, without anybody to ask for others."""

    keys: KeySet | None
    asked: int = 0

    def look_up(self) -> asyncio.Task[None] | None:
        self.asked += 1
        return None


def known(*keys: Key | Mapping[str, Any], algorithms: Sequence[str] = ALGORITHMS) -> Known:
    """The keys of a set."""
    return Known(KeySet(published(*keys), algorithms))


@dataclass
class Publisher:
    """A server that publishes keys on loopback, or does not."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """Answers wait for it."""

    async def __aenter__(self) -> Publisher:
        self.open.set()
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/jwks"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.open.set()
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        self.asked += 1
        await self.open.wait()
        return web.Response(body=self.body, status=self.status, headers=self.headers)
