"""Policies that change while Callgate serves: loaded, proven and swapped whole, or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from watchfiles import awatch

from proxy.engines.sources.fetching import RemoteBundle
from proxy.engines.sources.policyset import PolicyFault, PolicySet

log = logging.getLogger("callgate.policies")

# A mounted ConfigMap changes by several renames at once; an editor writes more than once.
_SETTLE_MS = 200
# Each look takes the interpreter from the event loop.
_LOOK_EVERY_MS = 200


Note = Callable[[str, str, Sequence[str]], None]


class Replaceable(Protocol):
    """An engine that takes other policies."""

    @property
    def revision(self) -> str:
        """Digest of the policies in force."""
        ...

    async def replace(self, policy_set: PolicySet) -> None:
        """Put other policies in force, whole; raises ``PolicyFault`` and keeps the old ones."""
        ...

    async def start(self) -> None:
        """Be ready to decide; raises ``PolicyFault``."""
        ...

    async def close(self) -> None:
        """Leave nothing running."""
        ...


class PolicyWatcher:
    """Keeps an engine at what its sources say; what cannot serve leaves the last good policies in force."""

    def __init__(
        self,
        engine: Replaceable,
        load: Callable[[], Awaitable[PolicySet]],
        paths: Sequence[Path],
        settle_ms: int = _SETTLE_MS,
        note: Note = lambda event, revision, faults: None,
        remote: Sequence[RemoteBundle] = (),
    ) -> None:
        """``load`` reads everything anew: the files in ``paths``, and what has come of ``remote``.

        ``note`` is told of every change: ``loaded`` or ``refused``, the revision in force, the faults.
        """
        self.faults: tuple[str, ...] = ()
        """What is wrong with the sources as they stand; empty while they are in force."""
        self.reloads = 0
        """How often other policies were put in force."""
        self.failures = 0
        """How often the sources could not be put in force."""
        self._engine, self._load, self._settle_ms, self._note = engine, load, settle_ms, note
        # The folder of a file: who replaces a file by a rename does not touch the file that was watched.
        self._watched = sorted({path if path.is_dir() else path.parent for path in paths})
        self._remote = tuple(remote)
        self._one_at_a_time = asyncio.Lock()

    async def start(self) -> None:
        """Ask for what is elsewhere, and tell which policies are in force from the start.

        Raises ``PolicyFault`` where those that are there from the start cannot serve.
        """
        await self._engine.start()
        if not self._remote:
            self._note("loaded", self._engine.revision, ())
            return
        await self._fetch()
        await self.reload()

    async def _fetch(self) -> None:
        for bundle in self._remote:
            await bundle.start()
        await asyncio.gather(*(bundle.refresh() for bundle in self._remote))

    async def read_once(self) -> PolicySet:
        """Everything as it stands, fetched once, proven and put in force; raises ``PolicyFault``."""
        try:
            await self._fetch()
            policy_set = await self.load()
            await self._engine.replace(policy_set)
        finally:
            await self.close()
        return policy_set

    async def close(self) -> None:
        """Close every connection, and end what the engine has running."""
        await self._engine.close()
        for bundle in self._remote:
            await bundle.close()

    def missing(self) -> list[str]:
        """What keeps policies from being in force at all; empty once some are."""
        return [] if self._engine.revision else [f"policies: none are in force yet; {f}" for f in self.faults]

    def notes(self) -> list[str]:
        """What is wrong, for readiness to tell."""
        if not self._engine.revision:
            return []
        late = [bundle.fault for bundle in self._remote if bundle.fault is not None]
        return [f"policies: the last good ones are in force; {fault}" for fault in (*self.faults, *late)]

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the files and the bundles elsewhere until ``stop``."""
        followed = [bundle.run(stop, self._answered) for bundle in self._remote]
        await asyncio.gather(*followed, self._follow_files(stop))

    async def _answered(self, bundle: RemoteBundle) -> None:
        """Another bundle came, or none, or one comes again."""
        if bundle.fault is not None and self._engine.revision:
            self._refused((bundle.fault,))
        else:
            await self.reload()

    async def _follow_files(self, stop: asyncio.Event) -> None:
        if not self._watched:
            return
        # No filter: the ``..data`` link of a mounted ConfigMap is what changes when its files do.
        async for _ in awatch(
            *self._watched, watch_filter=None, debounce=self._settle_ms, stop_event=stop, step=_LOOK_EVERY_MS
        ):
            await self.reload()

    async def load(self) -> PolicySet:
        """Everything as it stands, from everywhere, read and put together; raises ``PolicyFault``."""
        if faults := [bundle.fault for bundle in self._remote if bundle.content is None and bundle.fault]:
            raise PolicyFault(faults)
        return await self._load()

    async def reload(self) -> None:
        """Put everything as it stands in force, if it can serve."""
        async with self._one_at_a_time:
            try:
                policy_set = await self.load()
                if policy_set.revision == self._engine.revision:
                    self.faults = ()
                    return
                await self._engine.replace(policy_set)
            except PolicyFault as exc:
                self.faults = exc.faults
                for bundle in self._remote:
                    bundle.forget()
                self._refused(exc.faults)
                return
            self.faults, self.reloads = (), self.reloads + 1
            log.info("policies %s are in force%s", policy_set.revision[:16], _bundles(policy_set))
            self._note("loaded", policy_set.revision, ())

    def _refused(self, faults: tuple[str, ...]) -> None:
        self.failures += 1
        kept = "the last good ones stay in force" if self._engine.revision else "there are none in force"
        for fault in faults:
            log.error("policies cannot be put in force, %s: %s", kept, fault)
        self._note("refused", self._engine.revision, faults)


def _bundles(policy_set: PolicySet) -> str:
    named = [f"{label} is {revision[:100]}" for label, revision in policy_set.labels if revision]
    return f" ({', '.join(named)})" if named else ""
