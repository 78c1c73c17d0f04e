"""The embedded Rego engine: regorus, in the process, compiled once and swapped whole.

Not safe across threads: build it, replace its policies and ask it on one thread, the event loop's. An
evaluation cannot be interrupted, and nothing else runs meanwhile. So what is not known to end soon is asked
aside, in a process that is ended at the deadline.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from proxy.engines.evaluating.aside import Aside, Counts, proven
from proxy.engines.evaluating.compiling import assembled, bounds_of, compiled, evaluate, translated
from proxy.engines.evaluating.pace import Pace
from proxy.engines.rego.bounds import Bound
from proxy.engines.sources.policyset import PolicyFault, PolicySet
from proxy.engines.translated.decisions import Translated
from proxy.engines.translated.values import Unknown
from proxy.model import dumps
from proxy.ports import Unavailable

log = logging.getLogger("callgate.policies")


@dataclass(frozen=True, slots=True)
class _InForce:
    """Policies that decide now, whole: a decision is made by what it found in force."""

    engine: Any
    translated: Translated
    packages: frozenset[str]
    reads: Mapping[str, frozenset[str] | None]
    bounds: Mapping[str, Bound]
    revision: str
    aside: Aside
    pace: Pace


class RegorusEngine:
    """The ``PolicyEngine`` port over regorus."""

    def __init__(self, policy_set: PolicySet, timeout_s: float | None = 1.0) -> None:
        """Compile and prove; raises ``PolicyFault`` naming every fault with its file and line.

        What is not known to end soon is proven by ``start``. ``timeout_s`` bounds a decision made aside;
        without it everything is evaluated here, however long that takes.
        """
        self.counts = Counts()
        """What was asked aside so far, and what had to be ended."""
        self._timeout_s = timeout_s or 1.0
        ready = compiled(policy_set, only_bounded=timeout_s is not None)
        limits = bounds_of(policy_set) if timeout_s is not None else {}
        aside = Aside(policy_set, self._timeout_s, self.counts)
        self._in_force = _InForce(
            ready.engine,
            translated(policy_set),
            ready.packages,
            ready.reads,
            limits,
            ready.revision,
            aside,
            Pace(),
        )

    @classmethod
    async def of(cls, policy_set: PolicySet, timeout_s: float = 1.0) -> RegorusEngine:
        """An engine whose policies are proven aside, so that the event loop goes on meanwhile."""
        engine = cls(PolicySet.of({}), timeout_s)
        await engine.replace(policy_set)
        return engine

    async def start(self) -> None:
        """Have what is asked aside ready; raises ``PolicyFault`` where that cannot serve."""
        if self.asked_aside:
            self._tell()
            await self._in_force.aside.start()

    async def close(self) -> None:
        """End the processes."""
        await self._in_force.aside.close()

    async def replace(self, policy_set: PolicySet) -> None:
        """Put other policies in force, whole, while decisions go on being made.

        Where they cannot serve, raises ``PolicyFault`` and keeps those that are in force.
        """
        found = await proven(policy_set)
        ready = await assembled(policy_set, found.translation)
        if isinstance(ready, list):
            await found.evaluator.close()
            raise PolicyFault(ready)
        aside = Aside(policy_set, self._timeout_s, self.counts, [found.evaluator])
        packages, reads = found.ready.packages, found.ready.reads
        before, self._in_force = (
            self._in_force,
            _InForce(*ready, packages, reads, found.bounds, policy_set.revision, aside, Pace()),
        )
        if self.asked_aside:
            self._tell()
            aside.warm()
        before.translated.forget()
        await before.aside.retire()

    def _tell(self) -> None:
        for package, why in sorted(self.asked_aside.items()):
            log.warning("%s is evaluated aside, in a process that is ended at the deadline: %s", package, why)

    @property
    def revision(self) -> str:
        return self._in_force.revision

    @property
    def asked_aside(self) -> dict[str, str]:
        """The packages whose decisions are never made on the event loop, and why."""
        limits = self._in_force.bounds
        return {package: bound.why for package, bound in limits.items() if not bound.boxes}

    def defines(self, package: str) -> bool:
        return package in self._in_force.packages

    def reads(self, package: str) -> frozenset[str] | None:
        """The members of ``input`` that the decision may depend on; None where that cannot be told."""
        return self._in_force.reads.get(package, frozenset())

    async def decide(self, package: str, input: Mapping[str, Any]) -> Any:
        """The value of ``data.<package>.decision``, or None where it is undefined.

        ``revision`` is that of the policies which decided until the caller next awaits. Raises
        ``Unavailable`` when a rule fails on this input or the input cannot be handed over; the message
        names the rule's place, and quotes neither policy nor input.
        """
        in_force = self._in_force
        if package not in in_force.packages:
            return None
        quick = in_force.translated
        try:
            found = quick.decide(package, input)
        except Unknown:
            return await self._asked(in_force, package, input)
        if quick.is_doubted(package):
            decision = await self._asked(in_force, package, input)
            if self._in_force is in_force:
                quick.compare(package, found, decision)
            return decision
        return found

    async def _asked(self, in_force: _InForce, package: str, input: Mapping[str, Any]) -> Any:
        """The decision of the engine itself."""
        input_json, bound = encoded(input), in_force.bounds.get(package)
        if bound and (not bound.holds(input_json, input) or in_force.pace.is_slow(package)):
            decision = await in_force.aside.decide(package, input_json)
            # Others came in force meanwhile: theirs is the decision.
            return decision if self._in_force is in_force else await self.decide(package, input)
        # One engine holds one input: between setting it and asking, nothing may await.
        clock = in_force.pace.clock
        begun = clock()
        found = evaluate(in_force.engine, package, input_json)
        in_force.pace.took(package, clock() - begun)
        return None if found is None else orjson.loads(found)


def encoded(input: Mapping[str, Any]) -> str:
    """An input document as the engine takes it; raises ``Unavailable`` where it cannot be written."""
    # As text, never as objects: a lone surrogate or deep nesting among objects crashes the process.
    try:
        return dumps(input).decode()
    except UnicodeError:
        pass
    except (TypeError, ValueError, RecursionError):
        raise Unavailable("the policy input cannot be written as JSON") from None
    return _without_surrogates(input)


def _without_surrogates(input: Mapping[str, Any]) -> str:
    """Half a character in the history must not stop every later call; in the call itself it must."""
    try:
        dumps([input.get(part) for part in ("call", "tool", "batch")])
    except UnicodeError:
        raise Unavailable("the call holds text that is not valid Unicode") from None
    return json.dumps(input, ensure_ascii=False).encode("utf-8", "replace").decode()
