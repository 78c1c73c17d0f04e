"""What a guard may say of a call, and what becomes of the call for it. Decisions are values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from typing import Any, ClassVar

from proxy.model import dumps
from proxy.model.value import value


class Effect(StrEnum):
    """What happens to a call."""

    FORWARD = "forward"
    SETTLE = "settle"
    HOLD = "hold"
    FINISH = "finish"


@value(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One guard's word on one call."""

    effect: ClassVar[Effect]
    decisive: ClassVar[bool] = True
    """Whether the guards below are not asked any more."""

    reasons: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()
    """JSON pointers into the arguments that the record must not show."""
    cache_ttl_s: float | None = None
    """How old a cached answer may be at most, in seconds; None has no say."""

    @property
    def name(self) -> str:
        return type(self).__name__


@value(frozen=True, slots=True, kw_only=True)
class Allow(Verdict):
    """No objection."""

    effect = Effect.FORWARD
    decisive = False


@value(frozen=True, slots=True, kw_only=True)
class Repair(Verdict):
    """No objection once the arguments are these; the guards below see the new ones."""

    effect = Effect.FORWARD
    decisive = False
    arguments: dict[str, Any]


@value(frozen=True, slots=True, kw_only=True)
class Refusal(Verdict):
    """The call does not run; the model is told why, in a tool result that the proxy writes."""

    effect = Effect.SETTLE
    type: str
    retryable: bool = False
    details: Sequence[Mapping[str, str]] = field(default=())

    def content(self) -> str:
        """The tool result: short, for the model to read."""
        error: dict[str, Any] = {"type": self.type, "message": " ".join(self.reasons)}
        if self.details:
            error["details"] = list(self.details)
        error["retryable"] = self.retryable
        return dumps({"error": error}).decode()


@value(frozen=True, slots=True, kw_only=True)
class Reask(Refusal):
    """The call is wrong in a way that the model can mend."""

    type: str = "invalid_arguments"
    retryable: bool = True


@value(frozen=True, slots=True, kw_only=True)
class Deny(Refusal):
    """The call may not run."""

    type: str = "denied"


@value(frozen=True, slots=True, kw_only=True)
class Answer(Verdict):
    """The call need not run: this is its result."""

    effect = Effect.SETTLE
    result: str

    def content(self) -> str:
        """The tool result, as it was recorded."""
        return self.result


@value(frozen=True, slots=True, kw_only=True)
class Confirm(Verdict):
    """A person has to approve first."""

    effect = Effect.HOLD


@value(frozen=True, slots=True, kw_only=True)
class Break(Refusal):
    """Enough: the turn's calls are settled, tools are turned off, and the model answers with what it has."""

    effect = Effect.FINISH
    type: str = "limit_exceeded"
