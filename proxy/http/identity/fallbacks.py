"""Who asks, where Callgate knows nobody by name: holders of provider keys, and everyone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from proxy.http.identity.recognising import (
    MAX_KEY,
    NOTHING,
    PROVIDER_HEADERS,
    Recognised,
    Unidentified,
    digest_of,
    token_in,
)
from proxy.model import Principal


class Passthrough:
    """The digest of the provider's key that the client sends; the key itself is the provider's to check."""

    reads: tuple[str, ...] = PROVIDER_HEADERS
    strips = NOTHING
    way = "Send the provider's API key"

    def recognise(self, headers: Mapping[str, str], peer: str | None) -> Recognised | None:
        """The key's digest as a principal; two different keys are refused: the provider would take one."""
        key = ""
        for name in self.reads:
            if value := headers.get(name):
                token = token_in(name, value)
                # What the provider might read as the same key must not make another principal.
                if not _is_key(token):
                    raise Unidentified(f"The header {name} does not hold one key. {self.way}.", 400)
                if key and token != key:
                    raise Unidentified("The request holds two provider keys. Send one.", 400)
                key = token
        return _holder(digest_of(key)[:16]) if key else None


class Anonymous:
    """Everyone, as one principal."""

    reads: tuple[str, ...] = ()
    strips = NOTHING
    way = ""

    def __init__(self, roles: Iterable[str] = (), tenant: str = "") -> None:
        self._everyone = Recognised(Principal("anonymous", tuple(roles), tenant, kind="anonymous"), NOTHING)

    def recognise(self, headers: Mapping[str, str], peer: str | None) -> Recognised:
        """The same principal for every request."""
        return self._everyone


@lru_cache(maxsize=1024)
def _holder(digest: str) -> Recognised:
    return Recognised(Principal(f"key-{digest}", kind="passthrough"), NOTHING)


def _is_key(token: str) -> bool:
    return 0 < len(token) <= MAX_KEY and token.isascii() and token.isprintable() and " " not in token
