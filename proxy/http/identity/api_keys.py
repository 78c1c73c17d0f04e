"""Who asks, by a key of Callgate's own."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from proxy.http.identity.key_file import Key, read_key_file
from proxy.http.identity.recognising import (
    OWN_HEADER,
    PROVIDER_HEADERS,
    Recognised,
    Unidentified,
    digest_of,
    token_in,
)
from proxy.model import Principal

KEY_PREFIX = "cg_"
"""What keys that ``callgate keys`` makes begin with, and no provider's key does."""
# In quotes, behind another scheme or a word too many, nobody would read it, and the provider would get it.
_OURS = re.compile(rf"(?<![A-Za-z0-9_.+/~-]){KEY_PREFIX}")


class ApiKeys:
    """Callgate's own keys, known by their SHA-256 from a YAML file: digest -> {id, roles, tenant, expires}.

    Digests are looked up in a table: what the time of a look-up could tell is a part of the digest of a
    key that the asker chose, and no key can be worked out of it.
    """

    reads: tuple[str, ...] = (OWN_HEADER, *PROVIDER_HEADERS)
    strips = frozenset({OWN_HEADER})
    way = f"Send a Callgate API key as 'Authorization: Bearer KEY' or '{OWN_HEADER}: KEY'"

    def __init__(self, path: Path, last: bool = True, clock: Callable[[], float] = time.time) -> None:
        """Read the file; raises ``IdentityFault`` naming every fault in it.

        A key that can only be Callgate's own and is not known is refused, if this is the ``last`` file asked.
        """
        self.path = path
        self._last, self._clock = last, clock
        self._keys = read_key_file(path)

    def reload(self) -> None:
        """Read the file again; with a fault in it, the keys that were read before stay in force."""
        self._keys = read_key_file(self.path)

    def recognise(self, headers: Mapping[str, str], peer: str | None) -> Recognised | None:
        """The key's owner; a header that holds a key of Callgate's own is consumed."""
        owner: Principal | None = None
        consumed: list[str] = []
        for name, value, key in self._given(headers):
            if key is None:
                # Gone on with, a revoked key would reach the provider, and its holder pass for someone else.
                if self._last and (name == OWN_HEADER or _OURS.search(value)):
                    raise Unidentified(f"The key in {name} is not known. {self.way}.", error="invalid_token")
                continue
            if key.expires_s is not None and key.expires_s <= self._clock():
                raise Unidentified(f"The key in {name} has expired. Send a newer one.", error="invalid_token")
            if owner is not None and owner != key.owner:
                raise Unidentified("The request holds the keys of two principals. Send one.", 400)
            owner = key.owner
            consumed.append(name)
        return Recognised(owner, frozenset(consumed)) if owner else None

    def own(self, headers: Mapping[str, str]) -> frozenset[str]:
        """The headers that hold a key of Callgate's own, in force or not, which the provider must not see."""
        return frozenset(name for name, value, key in self._given(headers) if key or _OURS.search(value))

    def _given(self, headers: Mapping[str, str]) -> Iterator[tuple[str, str, Key | None]]:
        """Each header that may hold a key, its value, and the key that this is."""
        for name in self.reads:
            if value := headers.get(name):
                yield name, value, self._keys.get(digest_of(token_in(name, value)))
