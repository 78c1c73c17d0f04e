"""A file of keys that changes while Callgate serves: put in force whole, or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from watchfiles import awatch

from proxy.http.identity.key_file import IdentityFault

log = logging.getLogger("callgate.identity")

# A mounted Secret changes by several renames at once; an editor writes more than once.
_SETTLE_MS = 200
# Each look takes the interpreter from the event loop.
_LOOK_EVERY_MS = 200
# A link into another folder, or a network's file system, tells nobody that it changed: it is looked at.
_LOOK_MS = 5000


class FileFollower:
    """Keeps keys at what their file says; what cannot be used leaves the last good keys in force."""

    def __init__(
        self, path: Path, reload: Callable[[], None], settle_ms: int = _SETTLE_MS, look_ms: int = _LOOK_MS
    ) -> None:
        """``reload`` reads the file, or raises ``IdentityFault`` and leaves everything as it was."""
        self.faults: tuple[str, ...] = ()
        """What is wrong with the file as it stands; empty while it is in force."""
        self._path, self._reload = path, reload
        self._settle_ms, self._look_ms = settle_ms, look_ms
        self._seen: bytes | None = None

    async def start(self) -> None:
        """Read what was written since the keys were first read."""
        await self.look()

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the file until ``stop``."""
        # No filter, and the folder: who replaces a file by a rename does not touch the file that was watched,
        # and of a mounted Secret it is the ``..data`` link beside it that changes.
        async for _ in awatch(
            self._path.parent,
            watch_filter=None,
            recursive=False,
            debounce=self._settle_ms,
            step=_LOOK_EVERY_MS,
            rust_timeout=self._look_ms,
            yield_on_timeout=True,
            stop_event=stop,
        ):
            await self.look()

    async def close(self) -> None:
        """Nothing is left open."""

    def missing(self) -> list[str]:
        """Nothing: without it, Callgate serves and closes what depends on it."""
        return []

    def notes(self) -> list[str]:
        """What is wrong, for readiness to tell."""
        return [f"identity: the last good keys are in force; {fault}" for fault in self.faults]

    async def look(self) -> None:
        """Put the file in force, if it says something else than when it was looked at last."""
        version = await asyncio.to_thread(_version, self._path)
        found = await asyncio.to_thread(_digest, self._path)
        if found == self._seen:
            return
        self._seen, first = found, self._seen is None
        try:
            try:
                await asyncio.to_thread(self._reload)
            finally:
                # What was read may have been another text, and this one would never be put in force.
                if version != await asyncio.to_thread(_version, self._path):
                    self._seen = b""
        except IdentityFault as exc:
            self.faults = exc.faults
            for fault in exc.faults:
                log.error("the changed keys are not in force: %s", fault)
            return
        self.faults = ()
        if not first:
            log.info("the keys in %s are in force", self._path)


def _digest(path: Path) -> bytes:
    try:
        return sha256(path.read_bytes()).digest()
    except OSError as exc:
        return str(exc.errno).encode()


def _version(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError as exc:
        return (exc.errno or 0,)
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
