"""Decisions that may not be made on the event loop: asked of processes that are ended at the deadline."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.engines.evaluating.evaluation import BOUNDS, TRANSLATION
from proxy.engines.evaluating.evaluator import Evaluator, Overrun, Ready
from proxy.engines.rego.bounds import Bound
from proxy.engines.sources.faults import PolicyFault
from proxy.engines.sources.policyset import PolicySet
from proxy.engines.translated.program import Translation
from proxy.ports import Unavailable

log = logging.getLogger("callgate.policies")

# While one process is ended and started again, the other goes on answering.
PROCESSES = 2
# What is left of the deadline is for killing the process, and for saying so.
_EVALUATING = 0.8
_PROVING_S = 30.0
# Addresses, of which an engine without policies takes about 70 MiB.
_MEMORY_BYTES, _MEMORY_TIMES_DATA = 192 << 20, 24
_NICENESS = 5  # what explodes must not take the processor from what serves


@dataclass(slots=True)
class Counts:
    """What was asked aside."""

    outcomes: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """By package and outcome: ``decided``, ``failed``, ``late`` (its turn did not come in time), or
    ``ended`` (it took too long or too much memory: so often a process was killed)."""


class Aside:
    """The processes that evaluate one set of policies, started when they are first needed."""

    def __init__(
        self, policy_set: PolicySet, timeout_s: float, counts: Counts, running: Sequence[Evaluator] = ()
    ) -> None:
        """``timeout_s`` bounds a decision from the question to the answer.

        ``running`` are processes that have the policies already.
        """
        self._policy_set, self._timeout_s, self._counts = policy_set, timeout_s, counts
        self._running = list(running)
        self._pending = {id(evaluator): 0 for evaluator in running}
        self._idle = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Have every process ready; raises ``PolicyFault`` where the policies cannot serve."""
        # The one who waits may give up; the start goes on for the next.
        await asyncio.shield(self._started())

    def warm(self) -> None:
        """Begin to start, for what will be asked."""
        self._started()

    def _started(self) -> asyncio.Task[None]:
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._start())
            self._starting.add_done_callback(_told)
        return self._starting

    async def _start(self) -> None:
        try:
            while len(self._running) < PROCESSES:
                evaluator = _evaluator(self._policy_set)
                try:
                    await evaluator.start(self._policy_set)
                except BaseException:
                    await evaluator.close()
                    raise
                self._running.append(evaluator)
                self._pending[id(evaluator)] = 0
        except BaseException:
            self._starting = None  # the next one who asks tries again
            raise

    async def decide(self, package: str, input_json: str) -> Any:
        """As ``PolicyEngine.decide``, within the deadline; raises ``Unavailable``."""
        outcome = "failed"
        try:
            async with asyncio.timeout(self._timeout_s):
                decision = await self._asked(package, input_json.encode())
            outcome = "decided"
        except Overrun as exc:
            outcome = "ended"
            log.error("policy %s was ended on its input: %s", package, exc)
            raise Unavailable(f"policy {package} needs more time or memory than it has") from None
        except TimeoutError:
            outcome = "late"
            raise Unavailable(f"policy {package} did not decide within {self._timeout_s:g} s") from None
        except PolicyFault as exc:
            raise Unavailable(f"the policies cannot be evaluated aside: {exc}") from None
        finally:
            self._counts.outcomes[package, outcome] += 1
        return decision

    async def _asked(self, package: str, input_json: bytes) -> Any:
        started = self._started()
        if not self._running:
            await asyncio.shield(started)
        evaluator = min(self._running, key=lambda each: self._pending[id(each)])
        self._pending[id(evaluator)] += 1
        self._idle.clear()
        try:
            return await evaluator.decide(package, input_json, self._timeout_s * _EVALUATING)
        finally:
            self._pending[id(evaluator)] -= 1
            if not any(self._pending.values()):
                self._idle.set()

    async def retire(self) -> None:
        """Ask nothing more; what was asked before is still answered, in its time."""
        if any(self._pending.values()):
            await self._idle.wait()
        await self.close()

    async def close(self) -> None:
        """End every process; who still waits is told ``Unavailable``."""
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        running, self._running = self._running, []
        await asyncio.gather(*(evaluator.close() for evaluator in running))


def _evaluator(policy_set: PolicySet) -> Evaluator:
    most = _MEMORY_BYTES + _MEMORY_TIMES_DATA * len(policy_set.data_json)
    return Evaluator(max_memory_bytes=most, start_timeout_s=_PROVING_S, niceness=_NICENESS, rests=False)


def _told(starting: asyncio.Task[None]) -> None:
    if not starting.cancelled() and (exc := starting.exception()) is not None:
        log.error("a process to evaluate policies aside cannot be started: %s", exc)


@dataclass(frozen=True, slots=True)
class Proven:
    """A process that has compiled and proven policies, and what it found in them."""

    evaluator: Evaluator
    ready: Ready
    bounds: Mapping[str, Bound]
    translation: Translation


async def proven(policy_set: PolicySet) -> Proven:
    """Have a process compile and prove policies; raises ``PolicyFault``."""
    evaluator = _evaluator(policy_set)
    try:
        ready = await evaluator.start(policy_set)
        told = await evaluator.decide(BOUNDS, b"", _PROVING_S)
        translation = Translation.of(await evaluator.decide(TRANSLATION, b"", _PROVING_S))
    except Unavailable as exc:
        await evaluator.close()
        raise PolicyFault([f"the policies cannot be proven: {exc}"]) from None
    except BaseException:
        await evaluator.close()
        raise
    bounds = {package: Bound.of(bound) for package, bound in told.items()}
    return Proven(evaluator, ready, bounds, translation)
