"""Policies that change while Callgate serves: loaded, proven and swapped whole, or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from watchfiles import awatch

from proxy.engines.policyset import PolicyFault, PolicySet

log = logging.getLogger("callgate.policies")

# A mounted ConfigMap changes by several renames at once; an editor writes more than once.
_SETTLE_MS = 200


Note = Callable[[str, str, Sequence[str]], None]


class Replaceable(Protocol):
    """An engine that takes other policies."""

    @property
    def revision(self) -> str:
        """Digest of the policies in force."""
        ...

    def replace(self, policy_set: PolicySet) -> None:
        """Put other policies in force, whole; raises ``PolicyFault`` and keeps the old ones."""
        ...


class PolicyWatcher:
    """Keeps an engine at what its files say; what cannot serve leaves the last good policies in force."""

    def __init__(
        self,
        engine: Replaceable,
        load: Callable[[], PolicySet],
        paths: Sequence[Path],
        settle_ms: int = _SETTLE_MS,
        note: Note = lambda event, revision, faults: None,
    ) -> None:
        """``note`` is told of every change: ``loaded`` or ``refused``, the revision in force, the faults."""
        self.faults: tuple[str, ...] = ()
        """What is wrong with the files as they stand; empty while they are in force."""
        self.reloads = 0
        """How often other policies were put in force."""
        self.failures = 0
        """How often the files could not be put in force."""
        self._engine, self._load, self._settle_ms, self._note = engine, load, settle_ms, note
        # The folder of a file: who replaces a file by a rename does not touch the file that was watched.
        self._watched = sorted({path if path.is_dir() else path.parent for path in paths})

    async def start(self) -> None:
        """Tell which policies are in force from the start."""
        self._note("loaded", self._engine.revision, ())

    async def close(self) -> None:
        """Nothing is left open."""

    def notes(self) -> list[str]:
        """What is wrong, for readiness to tell."""
        return [f"policies: the last good ones are in force; {fault}" for fault in self.faults]

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the files until ``stop``."""
        # No filter: the ``..data`` link of a mounted ConfigMap is what changes when its files do.
        async for _ in awatch(
            *self._watched, watch_filter=None, debounce=self._settle_ms, stop_event=stop, step=50
        ):
            await self.reload()

    async def reload(self) -> None:
        """Put the files as they stand in force, if they can serve."""
        try:
            # Reading and merging need no engine, so they may take their time elsewhere.
            policy_set = await asyncio.to_thread(self._load)
            if policy_set.revision == self._engine.revision:
                self.faults = ()
                return
            self._engine.replace(policy_set)
        except PolicyFault as exc:
            self.faults, self.failures = tuple(exc.faults), self.failures + 1
            for fault in exc.faults:
                log.error("the changed policies are not in force: %s", fault)
            self._note("refused", self._engine.revision, exc.faults)
            return
        self.faults, self.reloads = (), self.reloads + 1
        log.info("policies %s are in force", policy_set.revision[:16])
        self._note("loaded", policy_set.revision, ())
