"""Asking the policies about a request, and not asking twice what cannot come out otherwise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, TypeVar

from cachetools import LRUCache

from proxy.guards.base import Situation, canonical
from proxy.ports import PolicyEngine, Unavailable

T = TypeVar("T")

# What of the input is the same for the whole request; every gate adds members of its own.
_SITUATION = frozenset({"principal", "conversation", "model", "protocol", "batch", "history", "approval"})


class Decisions(Generic[T]):
    """The decisions of one package, each kept as long as nothing changes that it depends on."""

    def __init__(
        self, engine: PolicyEngine, package: str, read: Callable[[Any], T], max_entries: int = 1024
    ) -> None:
        """``read`` makes a decision of its document, and raises ``Unavailable`` for one without a meaning."""
        self._engine, self._package, self._read = engine, package, read
        self._known: LRUCache[Hashable, tuple[T, Any]] = LRUCache(max_entries)
        self._revision: str | None = None
        self._depends_on: tuple[str, ...] | None = None

    @property
    def defined(self) -> bool:
        """Whether the policies have a say here at all."""
        return self._engine.defines(self._package)

    def key(self, situation: Situation, about: Hashable) -> Hashable | None:
        """Equal for whatever is decided alike; None where a decision may not be kept.

        ``about`` stands for all members of the input that a gate adds to the situation.
        """
        revision = self._engine.revision
        if revision != self._revision:
            self._revision, self._depends_on = revision, self._found()
        if self._depends_on is None:
            return None
        seen = [_seen(situation, name) for name in self._depends_on]
        return None if None in seen else (revision, *seen, about)

    def _found(self) -> tuple[str, ...] | None:
        """The members of every input that the decision depends on; None where it may not be kept."""
        reads = self._engine.reads(self._package)
        return None if reads is None or "time" in reads else tuple(sorted(reads & _SITUATION))

    async def ask(self, situation: Situation, members: Mapping[str, Any]) -> T:
        """The decision; raises ``Unavailable``."""
        document = await self._engine.decide(self._package, {**situation.policy_input, **members})
        return self._read(document)

    async def of(
        self,
        situation: Situation,
        about: Hashable,
        members: Callable[[], Mapping[str, Any]],
        kept: Any = None,
    ) -> T:
        """The decision, asked for or known; ``kept`` lives as long, so that ids in ``about`` stay its own."""
        key = self.key(situation, about)
        if key is not None and key in self._known:
            return self._known[key][0]
        revision = self._engine.revision
        decision = await self.ask(situation, members())
        if key is not None and self._engine.revision == revision:
            self._known[key] = decision, kept
        return decision


def _seen(situation: Situation, name: str) -> Hashable | None:
    """A part of the input in as few bytes as tell it apart; None where it has no such form."""
    match name:
        case "model":
            return situation.request.model
        case "protocol":
            return situation.request.protocol
        case "principal":
            who = situation.principal
            claims = _digest(who.claims) if who.claims else b""
            return None if claims is None else (who.id, who.roles, who.tenant, claims)
        case _:
            return _digest(situation.policy_input[name])


def _digest(value: Any) -> bytes | None:
    try:
        return hashlib.sha256(canonical(value)).digest()
    except TypeError:  # text that is not Unicode, integers beyond 64 bits
        return None


def texts(value: Any, what: str) -> tuple[str, ...]:
    """A list of strings in a decision, () where there is none; raises ``Unavailable`` for anything else."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Unavailable(f"{what} is not a list of strings")
    return tuple(value)


def members(decision: Any, package: str, known: tuple[str, ...]) -> None:
    """Raise ``Unavailable`` unless a decision is an object without other members than these.

    A word that is not known must not be passed over: it may be meant to forbid something.
    """
    if not isinstance(decision, dict):
        raise Unavailable(f"{package}.decision is not an object")
    if unknown := decision.keys() - set(known):
        raise Unavailable(f"{package}.decision has members that mean nothing: {', '.join(sorted(unknown))}")


def effect(decision: Any, package: str, known: tuple[str, ...]) -> str:
    """The decision's effect; raises ``Unavailable`` for a document that has none of those known."""
    if not isinstance(decision, dict):
        raise Unavailable(f"{package}.decision is not an object")
    found = decision.get("effect")
    if not isinstance(found, str) or found not in known:
        raise Unavailable(f"the effect of {package} is none of {', '.join(known)}")
    return found
