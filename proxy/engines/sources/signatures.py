"""Who signed a bundle: OPA's bundle signing (https://www.openpolicyagent.org/docs/management-bundles#signing).

``.signatures.json`` holds one JWT whose payload lists every file with its digest. Data and manifest are
digested by what they say, not by how it is written; all other files by their bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NoReturn

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from proxy.engines.sources.archives import shown
from proxy.engines.sources.bundles import SIGNATURES
from proxy.engines.sources.datafiles import parse_yaml
from proxy.engines.sources.faults import SignatureFault
from proxy.model import loads

DEFAULT_KEY_ID = "default"
"""What ``opa build`` and ``opa sign`` call a key that was given no name."""

_MIN_RSA_BITS = 2048
_CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
# OPA knows MD5 and SHA-1 too, under which two files can be made to look alike.
_DIGESTS: Mapping[str, Callable[[bytes], Any]] = {
    "SHA-256": hashlib.sha256,
    "SHA-384": hashlib.sha384,
    "SHA-512": hashlib.sha512,
}
_STRUCTURED = frozenset({"data.json", "data.yaml", ".manifest"})


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key that bundles may be signed with, and the one algorithm that it is for."""

    id: str
    algorithm: str
    key: Any = field(repr=False)

    @classmethod
    def of(cls, id: str, algorithm: str, text: str) -> VerificationKey:
        """A key from its text: PEM of a public key or certificate, or with ``HS…`` the secret itself.

        Raises ``ValueError`` for a key that does not fit the algorithm, or is too weak for it.
        """
        if algorithm.startswith("HS"):
            # RFC 7518 3.2: a key of the digest's size or larger.
            least = int(algorithm[2:]) // 8
            if len(text.encode()) < least:
                raise ValueError(f"the secret is shorter than {least} bytes, which {algorithm} asks for")
            return cls(id, algorithm, text.encode())
        key = _public_key(text)
        if algorithm.startswith("ES"):
            if not isinstance(key, EllipticCurvePublicKey) or key.curve.name != _CURVES[algorithm]:
                raise ValueError(
                    f"it is no key on the curve {_CURVES[algorithm]}, which {algorithm} asks for"
                )
        elif not isinstance(key, RSAPublicKey) or key.key_size < _MIN_RSA_BITS:
            raise ValueError(f"it is no RSA key of {_MIN_RSA_BITS} bits or more, which {algorithm} asks for")
        return cls(id, algorithm, key)


def _public_key(text: str) -> Any:
    if "PRIVATE KEY-----" in text:
        raise ValueError("it is a private key: give its public half (openssl pkey -pubout)")
    try:
        if "-----BEGIN CERTIFICATE-----" in text:
            return x509.load_pem_x509_certificate(text.encode()).public_key()
        return serialization.load_pem_public_key(text.encode())
    except Exception:  # noqa: BLE001 -- cryptography names no bound to what a key's bytes may raise
        raise ValueError("it is not the PEM of a public key or a certificate") from None


@dataclass(frozen=True, slots=True)
class Verification:
    """The keys that a bundle may be signed with, and the scope that its signature has to name."""

    keys: tuple[VerificationKey, ...]
    scope: str = ""

    def verify(self, files: Mapping[str, bytes]) -> None:
        """Raise ``SignatureFault`` unless one of the keys signed exactly these files."""
        listed = _listed(_payload(_token(files), self), self.scope)
        for name, content in files.items():
            if name != SIGNATURES:
                if name not in listed:
                    raise SignatureFault(f"{shown(name)} is not signed: the signature does not list it")
                _verify_file(name, content, *listed[name])
        if missing := sorted(listed.keys() - files.keys()):
            raise SignatureFault(f"{shown(missing[0])} is signed, and missing from the bundle")


def _token(files: Mapping[str, bytes]) -> str:
    if SIGNATURES not in files:
        raise SignatureFault(f"it is not signed: there is no {SIGNATURES} in it")
    signed = _object(files[SIGNATURES], SIGNATURES)
    if signed.get("plugin", "") not in ("", "_default"):
        raise SignatureFault(f"{SIGNATURES}: signed by a plugin of OPA's, which only that plugin can verify")
    tokens = signed.get("signatures")
    if not isinstance(tokens, list) or len(tokens) != 1 or not isinstance(tokens[0], str):
        raise SignatureFault(f"{SIGNATURES}: does not hold exactly one signature")
    token: str = tokens[0]
    return token


def _object(content: bytes, place: str) -> dict[str, Any]:
    try:
        value = loads(content)
    except ValueError as exc:
        raise SignatureFault(f"{place}: {exc}") from None
    if not isinstance(value, dict):
        raise SignatureFault(f"{place}: not an object")
    return value


def _payload(token: str, verification: Verification) -> dict[str, Any]:
    try:
        unverified = jwt.api_jws.PyJWS().decode_complete(token, options={"verify_signature": False})
    except jwt.InvalidTokenError as exc:
        raise SignatureFault(f"{SIGNATURES}: the signature cannot be read: {exc}") from None
    # Only which of the keys to try is taken from what is not verified yet.
    named = unverified["header"].get("kid") or _object(unverified["payload"], SIGNATURES).get("keyid")
    key = _key(named, verification)
    try:
        # With the key's own algorithm: never with one that the signature asks for.
        signed = jwt.api_jws.PyJWS().decode_complete(token, key.key, algorithms=[key.algorithm])
    except jwt.InvalidTokenError as exc:
        raise SignatureFault(
            f"it was not signed with the key {key.id!r} by {key.algorithm}, or was changed since ({exc})"
        ) from None
    return _object(signed["payload"], SIGNATURES)


def _key(named: Any, verification: Verification) -> VerificationKey:
    if not named and len(verification.keys) == 1:
        return verification.keys[0]
    for key in verification.keys:
        if key.id == named:
            return key
    known = ", ".join(repr(key.id) for key in verification.keys)
    raise SignatureFault(f"it is signed with a key named {shown(str(named))}; the keys here are {known}")


def _listed(payload: Mapping[str, Any], scope: str) -> dict[str, tuple[str, str]]:
    """The signed files, each with algorithm and digest."""
    if payload.get("scope", "") != scope:
        raise SignatureFault(
            f"it is signed for the scope {shown(str(payload.get('scope', '')))}, not {scope!r}"
        )
    listed: dict[str, tuple[str, str]] = {}
    entries = payload.get("files")
    for entry in entries if isinstance(entries, list) else ():
        name, digest, algorithm = _entry(entry)
        if name in listed:
            raise SignatureFault(f"the signature lists {shown(name)} twice")
        listed[name] = algorithm, digest
    return listed


def _entry(entry: Any) -> tuple[str, str, str]:
    match entry:
        case {"name": str(name), "hash": str(digest), "algorithm": str(algorithm)}:
            return name, digest, algorithm
    raise SignatureFault("the signature lists something that is not a file with its digest")


def _verify_file(name: str, content: bytes, algorithm: str, digest: str) -> None:
    if algorithm not in _DIGESTS:
        known = ", ".join(_DIGESTS)
        raise SignatureFault(f"{shown(name)} is signed by {shown(algorithm)}, which is none of {known}")
    structured = name.rpartition("/")[2] in _STRUCTURED
    try:
        found = _DIGESTS[algorithm](canonical(content) if structured else content).hexdigest()
    except (ValueError, RecursionError) as exc:
        raise SignatureFault(f"{shown(name)} cannot be verified: {exc}") from None
    if not hmac.compare_digest(found.encode(), digest.lower().encode()):
        raise SignatureFault(f"{shown(name)} is not what was signed: its digest is another")


class _Number(str):
    """A number as it was written, which is how OPA digests it."""


def canonical(content: bytes) -> bytes:
    """What OPA digests of JSON or YAML: keys in order, no space, numbers as written, text as Go writes it."""
    text = content.decode().removeprefix("\ufeff")
    try:
        # What is served is read strictly, later; here numbers have to stay as they were written.
        value = json.loads(  # noqa: TID251
            text, parse_int=_Number, parse_float=_Number, parse_constant=_no_number
        )
    except json.JSONDecodeError:
        value = parse_yaml(text)
    return "".join(_written(value)).encode()


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _written(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        before = "{"
        for key in sorted(value):
            yield before + _quoted(key) + ":"
            yield from _written(value[key])
            before = ","
        yield "}" if value else "{}"
    elif isinstance(value, list):
        before = "["
        for item in value:
            yield before
            yield from _written(item)
            before = ","
        yield "]" if value else "[]"
    else:
        yield _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, _Number):
        return value
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, float):
        return _float(value)
    return json.dumps(value)


def _quoted(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _float(value: float) -> str:
    """As Go's encoding/json writes it: shortest digits, with an exponent below 1e-6 and from 1e21 on."""
    if value != 0 and not 1e-6 <= abs(value) < 1e21:
        return repr(value).replace("e-0", "e-").replace(".0e", "e")
    plain = format(Decimal(repr(value)), "f")
    return plain.removesuffix(".0")
