"""One set of policies, asked again about recorded calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.gates.comparing import Stand, stand
from proxy.guards.policy import PACKAGE
from proxy.ports import PolicyEngine, Unavailable
from proxy.record import MASKED
from proxy.replay.rebuilding import Asked

INDETERMINATE = Stand("indeterminate")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What policies say of one call; ``INDETERMINATE`` where what is ``missing`` might change it."""

    stand: Stand
    missing: tuple[str, ...] = ()
    failed: bool = False
    """They could not decide, which denies; the reason says why."""


class Side:
    """Policies, and what they might look at."""

    def __init__(self, engine: PolicyEngine, mentions: Callable[[str], bool] = lambda name: True) -> None:
        """``mentions`` says whether policies or data hold a name at all, so that they may look it up."""
        self.engine = engine
        self._mentions = mentions
        self._reads = engine.reads(PACKAGE)

    async def judge(self, asked: Asked) -> Judgement:
        """What these policies say of the call now."""
        read = tuple(pointer for pointer in asked.missing if self._may_read(pointer))
        if read:
            return Judgement(INDETERMINATE, read)
        found = await self._ask(asked.document)
        if asked.missing and await self._ask(_otherwise(asked.document, asked.missing)) != found:
            return Judgement(INDETERMINATE, asked.missing)
        return found

    def _may_read(self, pointer: str) -> bool:
        names = [_unescaped(part) for part in pointer.split("/")[1:]]
        if not names:
            return True
        if self._reads is not None and names[0] not in self._reads:
            return False
        return self._mentions(next(name for name in reversed(names) if not name.isdigit()))

    async def _ask(self, document: Mapping[str, Any]) -> Judgement:
        try:
            if not self.engine.defines(PACKAGE):
                return Judgement(Stand("deny", ("No policy decides on tool calls, so none is allowed.",)))
            return Judgement(stand(PACKAGE, await self.engine.decide(PACKAGE, document), document))
        except Unavailable as exc:
            return Judgement(Stand("deny", (str(exc),)), failed=True)


def _otherwise(document: Any, missing: Sequence[str]) -> Any:
    """The document with other stand-ins: policies that do not look at them decide alike."""
    for pointer in missing:
        document = _put(document, [_unescaped(part) for part in pointer.split("/")[1:]])
    return document


def _put(value: Any, parts: Sequence[str]) -> Any:
    if not parts:
        if value == MASKED:
            return None
        return MASKED if isinstance(value, str) else {MASKED: MASKED}
    if isinstance(value, list):
        index = int(parts[0])
        return [*value[:index], _put(value[index], parts[1:]), *value[index + 1 :]]
    return {**value, parts[0]: _put(value[parts[0]], parts[1:])}


def _unescaped(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")
