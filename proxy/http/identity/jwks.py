"""An issuer's published keys (RFC 7517): read whole, kept by what they can check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from proxy.model import Fault, loads

MAX_BYTES = 256 * 1024
MAX_KEYS = 64
# Of keys that a token could mean; trying more of them would be work that anyone can ask for.
MAX_TRIED = 4

# RFC 7518 6.1, RFC 8037 2: an algorithm is checked with a key that was made for it, or not at all. A curve of
# "" is any. Nothing here is symmetric: what is published could then sign.
_FITS: Mapping[str, tuple[str, frozenset[str]]] = {
    **{name: ("RSA", frozenset()) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")},
    "ES256": ("EC", frozenset({"P-256"})),
    "ES384": ("EC", frozenset({"P-384"})),
    "ES512": ("EC", frozenset({"P-521"})),
    "EdDSA": ("OKP", frozenset({"Ed25519", "Ed448"})),
}
# NIST SP 800-131A 1; checking a signature takes time with the square of the size.
_RSA_BITS = range(2048, 8193)


class KeySetFault(ValueError):
    """The text is no set of keys; the message says why, for the operator."""


class KeySet:
    """The keys that can check a token of an issuer; a set that says the same is equal."""

    def __init__(self, raw: bytes, algorithms: Iterable[str]) -> None:
        """Read a JWK Set; raises ``KeySetFault``. Keys for anything else than checking are passed over."""
        self._digest = sha256(raw).digest()
        self._keys: dict[str, list[tuple[str | None, jwt.PyJWK]]] = {name: [] for name in algorithms}
        for key in _listed(raw):
            for algorithm, fitting in self._keys.items():
                if (usable := _usable(key, algorithm)) is not None:
                    fitting.append((_key_id(key), usable))
        self.ids = frozenset(id for fitting in self._keys.values() for id, _ in fitting)
        """The ids of the keys; None among them for keys without one."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeySet) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __len__(self) -> int:
        return len({id(key) for fitting in self._keys.values() for key in fitting})

    def checks(self, algorithm: str) -> bool:
        """Whether signatures of this algorithm are accepted at all."""
        return algorithm in self._keys

    def find(self, key_id: str | None, algorithm: str) -> Sequence[jwt.PyJWK]:
        """The keys that may have signed such a token: of its id, or where it names none, those that fit."""
        fitting = self._keys.get(algorithm, ())
        return [key for id, key in fitting if key_id is None or id == key_id][:MAX_TRIED]


def _listed(raw: bytes) -> list[Any]:
    if len(raw) > MAX_BYTES:
        raise KeySetFault(f"is longer than {MAX_BYTES} bytes")
    try:
        value = loads(raw)
    except Fault as exc:
        raise KeySetFault(str(exc)) from None
    keys = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(keys, list):
        raise KeySetFault('is not a JWK Set: {"keys": [...]}')
    if len(keys) > MAX_KEYS:
        raise KeySetFault(f"holds more than {MAX_KEYS} keys")
    return keys


def _usable(key: Any, algorithm: str) -> jwt.PyJWK | None:
    """The key for checking signatures of this algorithm; None where it is for anything else."""
    if not isinstance(key, dict) or not _meant(key, algorithm):
        return None
    try:
        made = jwt.PyJWK(key, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, KeyError):  # not what its type promises
        return None
    if isinstance(made.key, RSAPublicKey) and made.key.key_size not in _RSA_BITS:
        return None
    return made


def _meant(key: Mapping[str, Any], algorithm: str) -> bool:
    kind, curves = _FITS[algorithm]
    operations = key.get("key_ops", ["verify"])
    return (
        key.get("kty") == kind
        and (not curves or _text(key.get("crv")) in curves)
        and key.get("alg", algorithm) == algorithm
        and key.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        # A private key that was published can be anyone's.
        and "d" not in key
    )


def _key_id(key: Mapping[str, Any]) -> str | None:
    return _text(key.get("kid")) or None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
