"""An engine whose policies come from elsewhere, and may not have come yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.engines.evaluating.aside import Counts
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet
from proxy.ports import Unavailable


class WaitingEngine:
    """The ``PolicyEngine`` port over policies that are still to come: until then nothing is decided."""

    def __init__(self, timeout_s: float = 1.0) -> None:
        """``timeout_s`` bounds a decision made aside."""
        self._timeout_s = timeout_s
        self._engine: RegorusEngine | None = None

    @property
    def ready(self) -> bool:
        """Whether there are policies in force."""
        return self._engine is not None

    async def start(self) -> None:
        """There is nothing to make ready."""

    async def close(self) -> None:
        """Leave nothing running."""
        if self._engine is not None:
            await self._engine.close()

    async def replace(self, policy_set: PolicySet) -> None:
        """Put policies in force, whole; raises ``PolicyFault`` and leaves everything as it was."""
        if self._engine is None:
            self._engine = await RegorusEngine.of(policy_set, self._timeout_s)
        else:
            await self._engine.replace(policy_set)

    @property
    def asked_aside(self) -> Mapping[str, str]:
        """The packages whose decisions are never made on the event loop, and why."""
        return self._engine.asked_aside if self._engine is not None else {}

    @property
    def counts(self) -> Counts:
        """What was asked aside so far."""
        return self._engine.counts if self._engine is not None else Counts()

    @property
    def revision(self) -> str:
        """Digest of the policies in force; empty while there are none."""
        return self._engine.revision if self._engine is not None else ""

    def defines(self, package: str) -> bool:
        """While it is not known which packages decide, all of them are asked, and no answer is a denial."""
        return self._engine is None or self._engine.defines(package)

    def reads(self, package: str) -> frozenset[str] | None:
        return self._engine.reads(package) if self._engine is not None else None

    async def decide(self, package: str, input: Mapping[str, Any]) -> Any:
        """As ``RegorusEngine.decide``; raises ``Unavailable`` while there are no policies."""
        if self._engine is None:
            raise Unavailable("no policies are in force yet: their bundle has not come")
        return await self._engine.decide(package, input)
