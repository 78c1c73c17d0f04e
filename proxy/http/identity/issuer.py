"""An issuer's keys as they are known now, and how Callgate keeps up with them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from proxy.http.identity.fetching import Fetch
from proxy.http.identity.jwks import MAX_BYTES, KeySet, KeySetFault
from proxy.http.identity.key_file import IdentityFault
from proxy.http.tasks import spawn

log = logging.getLogger("callgate.identity")

# Between two times that tokens may have the issuer asked: whoever sends tokens chooses when.
_COOLDOWN_S = 10.0
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 60.0


class Keys(Protocol):
    """An issuer's keys as they are known now."""

    keys: KeySet | None
    """None until they were read once."""

    def look_up(self) -> asyncio.Task[None] | None:
        """Have them read anew for a key that is not known; None where that is not done now."""
        ...


class KeysFile:
    """Keys in a file; a ``FileFollower`` calls ``reload``."""

    def __init__(self, path: Path, algorithms: Sequence[str]) -> None:
        """Read the file; raises ``IdentityFault``."""
        self.path, self._algorithms = path, algorithms
        self.keys: KeySet | None = None
        self.reload()

    def reload(self) -> None:
        """Read the file again; raises ``IdentityFault`` and keeps the keys that were read before."""
        try:
            with self.path.open("rb") as stream:
                keys = KeySet(stream.read(MAX_BYTES + 1), self._algorithms)
        except OSError as exc:
            raise IdentityFault(
                [f"{self.path}: {exc.strerror or exc} (name a file that can be read)"]
            ) from None
        except KeySetFault as exc:
            raise IdentityFault([f"{self.path}: {exc} (write what the issuer publishes)"]) from None
        self.keys = self.keys if keys == self.keys else keys

    def look_up(self) -> None:
        """Never: the file is followed."""


class Issuer:
    """Keeps keys at what is published: read at the start, every ``refresh_s``, and when a new one turns up.

    What cannot be read leaves the last good keys in force; a key that is no longer published goes.
    """

    def __init__(
        self,
        fetch: Fetch,
        algorithms: Sequence[str],
        refresh_s: float = 300.0,
        cooldown_s: float = _COOLDOWN_S,
        first_retry_s: float = _FIRST_RETRY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``cooldown_s`` lies at least between two look-ups that tokens ask for."""
        self.keys: KeySet | None = None
        self.fault: str | None = "has not been asked yet"
        """Why the keys are not those that are published now; None while they are."""
        self._fetch, self._algorithms, self._clock = fetch, tuple(algorithms), clock
        self._refresh_s, self._cooldown_s, self._first_retry_s = refresh_s, cooldown_s, first_retry_s
        self._retry_s = first_retry_s
        self._not_before = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the keys once; an issuer that is not there yet is no error."""
        await asyncio.wait({self._ask()})

    async def run(self, stop: asyncio.Event) -> None:
        """Keep up until ``stop``; an issuer that does not answer is asked again, less and less often."""
        while not stop.is_set():
            wait_s = self._refresh_s
            if self.fault is not None:
                wait_s, self._retry_s = min(wait_s, self._retry_s), min(self._retry_s * 2, _LAST_RETRY_S)
            stopping = spawn(stop.wait())
            await asyncio.wait({stopping}, timeout=wait_s)
            if not stopping.done():
                # Who stops does not wait for an issuer that hangs.
                await asyncio.wait({stopping, self._ask()}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()

    async def close(self) -> None:
        """Stop asking, and close the connection."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})
        await self._fetch.close()

    def missing(self) -> list[str]:
        """Nothing: without it, Callgate serves and closes what depends on it."""
        return []

    def notes(self) -> list[str]:
        """What is wrong, for readiness to tell."""
        if self.fault is None:
            return []
        kept = "tokens cannot be checked" if self.keys is None else "the last good keys are in force"
        return [f"identity: {kept}; {self._fetch.place} {self.fault}"]

    def look_up(self) -> asyncio.Task[None] | None:
        """Ask the issuer because of a key that is not known; None while the next time is not due."""
        if self._asking is None or self._asking.done():
            if self._clock() < self._not_before:
                return None
            self._not_before = self._clock() + self._cooldown_s
        return self._ask()

    def _ask(self) -> asyncio.Task[None]:
        if self._asking is None or self._asking.done():
            self._asking = spawn(self._read())
        return self._asking

    async def _read(self) -> None:
        try:
            raw = await self._fetch()
            # Building keys takes its time, and none of it is the loop's.
            keys = await asyncio.to_thread(KeySet, raw, self._algorithms)
        except KeySetFault as exc:
            if self.fault != str(exc):
                log.error("the keys at %s are not in force: it %s", self._fetch.place, exc)
            self.fault = str(exc)
            return
        self._retry_s = self._first_retry_s
        # What the issuer withdrew is withdrawn, also where nothing is left.
        self.fault = None if keys.ids else f"publishes no key for {', '.join(self._algorithms)}"
        if keys != self.keys:
            self.keys = keys
            log.info("%d keys of %s are in force", len(keys), self._fetch.place)
