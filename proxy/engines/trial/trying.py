"""Keeps a candidate at what its files say, and asks it, while Callgate serves. Nothing of it is obeyed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from watchfiles import awatch

from proxy.engines.sources.policyset import PolicyFault, PolicySet
from proxy.engines.trial.candidate import DRAIN_S, Candidate

log = logging.getLogger("callgate.policies")

_SETTLE_MS = 200
# Each look takes the interpreter from the event loop.
_LOOK_EVERY_MS = 200
_LOOK_AGAIN_S = 2.0


class CandidateFollower:
    """Follows the candidate's files. Faults are told and logged; none keeps Callgate from serving."""

    def __init__(
        self,
        candidate: Candidate,
        load: Callable[[], Awaitable[PolicySet]],
        paths: Sequence[Path],
        settle_ms: int = _SETTLE_MS,
    ) -> None:
        self.faults: tuple[str, ...] = ()
        """What is wrong with the files as they stand; empty while they are asked."""
        self.reloads = 0
        """How often policies were put beside those in force."""
        self._candidate, self._load = candidate, load
        self._paths, self._settle_ms = tuple(paths), settle_ms

    async def start(self) -> None:
        """Nothing waits for a candidate."""

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the files and ask the candidate until ``stop``; then ask what waits, within a bound."""
        loop = asyncio.get_running_loop()
        following = loop.create_task(self._follow(stop))
        asking = loop.create_task(self._candidate.run())
        await stop.wait()
        self._candidate.stop()
        following.cancel()
        await asyncio.wait([asking], timeout=DRAIN_S)
        asking.cancel()
        for result in await asyncio.gather(following, asking, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("the candidate policies were not followed to the end", exc_info=result)

    async def close(self) -> None:
        """End the candidate's process; what still waits is dropped, and counted."""
        await self._candidate.close()

    def missing(self) -> list[str]:
        """Nothing: without it, Callgate serves and closes what depends on it."""
        return []

    def notes(self) -> list[str]:
        """What is wrong, for readiness to tell."""
        kept = "the last good ones are asked" if self._candidate.revision else "none are asked"
        notes = [f"policies.candidate: {kept}; {fault}" for fault in self.faults]
        if fault := self._candidate.fault:
            notes.append(f"policies.candidate: {fault}")
        return notes

    async def reload(self) -> None:
        """Ask the files as they stand from now on, if they can serve."""
        try:
            policy_set = await self._load()
            if policy_set.revision != self._candidate.revision:
                await self._candidate.put(policy_set)
                self.reloads += 1
                log.info("candidate policies %s are asked beside those in force", policy_set.revision[:16])
        except PolicyFault as exc:
            self._refuse(exc.faults)
        except Exception as exc:
            # Whatever is wrong with a candidate, the service goes on.
            log.exception("the candidate policies could not be loaded")
            self._refuse([f"they could not be loaded ({type(exc).__name__})"])
        else:
            self.faults = ()

    def _refuse(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        for fault in faults:
            log.error("the candidate policies are not asked: %s", fault)
        self._candidate.refuse()

    async def _follow(self, stop: asyncio.Event) -> None:
        await self.reload()
        while not stop.is_set():
            # The folder of a file: who replaces a file by a rename does not touch the file that was watched.
            folders = sorted({path if path.is_dir() else path.parent for path in self._paths})
            if not all(folder.is_dir() for folder in folders):
                await asyncio.sleep(_LOOK_AGAIN_S)
                if all(folder.is_dir() for folder in folders):
                    await self.reload()
                continue
            # No filter: the ``..data`` link of a mounted ConfigMap is what changes when its files do.
            async for _ in awatch(
                *folders, watch_filter=None, debounce=self._settle_ms, stop_event=stop, step=_LOOK_EVERY_MS
            ):
                await self.reload()
