"""Limits on requests, and on the tokens and US dollars that they use: of a principal, a tenant, a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import ceil

from proxy.guards.base import Refused, Situation
from proxy.guards.windows import Exceeded, Held, Limit, Unit, Use, Windows, in_words, log
from proxy.model import Request, Usage
from proxy.ports import Store, Unavailable

Cost = Callable[[str, Usage], float | None]

_BYTES_A_TOKEN = 4
_MAX_TOKENS = 10**12
# What each API calls the bound on an answer's length: of several, the largest may be the one that holds. By
# another API's name nothing is bounded, so it must not make a reservation smaller.
_OUTPUT_BOUNDS = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
    "messages": ("max_tokens",),
}


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was counted for a request before it was sent."""

    usage: Usage
    held: Sequence[Held]


class LimitsMeter:
    """A ``Meter``: reserves what a request may use before it is sent, and settles what it did use.

    The reservation is the request's size in bytes by four, and the most that the answer may be long.
    """

    def __init__(
        self,
        store: Store,
        cost_usd: Cost,
        *,
        principal: Sequence[Limit] = (),
        tenant: Sequence[Limit] = (),
        models: Mapping[str, Sequence[Limit]] | None = None,
        output_tokens: int = 4096,
        unknown_price: bool = False,
        enforce: bool = True,
        fail_open: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``models``: limits by glob, for all who ask together. ``output_tokens``: the length of an answer
        where the request does not bound it. ``unknown_price``: serve models without a price in spite of
        limits in US dollars. Without ``enforce`` nobody is refused; with ``fail_open`` nobody is where the
        store fails. ``clock``: seconds, shared by all replicas."""
        self._windows, self._cost_usd = Windows(store, clock), cost_usd
        self._principal, self._tenant, self._models = principal, tenant, models or {}
        self._output_tokens, self._unknown_price = output_tokens, unknown_price
        self._enforce, self._fail_open = enforce, fail_open

    async def open(self, situation: Situation) -> Reservation:
        """Reserve; raises ``Refused``: 429 where a limit is reached, 403 for a model without a price, 503
        where the store fails."""
        usage = self._estimate(situation.request)
        # No name holds what is raised: it would hold this frame, with the request, for the collector to find.
        try:
            uses = self._uses(situation, usage)
            return Reservation(usage, await self._windows.reserve(uses))
        except Exceeded as exc:
            if self._enforce:
                raise _refusal(exc) from exc
            would_be = _refusal(exc).message
        except Unavailable as exc:
            log.error("a request's use could not be counted: %s", exc)
            if self._fail_open:
                return Reservation(usage, ())
            would_be = "What this request uses cannot be counted for now, so it is not sent."
            if self._enforce:
                raise Refused(503, "limits_unavailable", would_be) from exc
        except Refused as exc:
            if self._enforce:
                raise
            would_be = exc.message
        log.info("would be refused (limits are in shadow mode): %s", would_be)
        return Reservation(usage, ())

    async def close(
        self, reservation: Reservation, usage: Usage, situation: Situation, broken_off: bool = False
    ) -> None:
        """Replace what was reserved by what was used; to fail is to let the reservation stand."""
        if broken_off:
            usage += reservation.usage
        model = situation.request.model
        used = [(held, self._amount(held.use.limit.unit, model, usage)) for held in reservation.held]
        await self._windows.settle([(held, amount) for held, amount in used if amount is not None])

    # -- what a request uses --------------------------------------------------------------------

    def _estimate(self, request: Request) -> Usage:
        said = [request.body.get(name) for name in _OUTPUT_BOUNDS.get(request.protocol, ())]
        bounds = [value for value in said if type(value) is int and value > 0]
        longest = min(max(bounds, default=self._output_tokens), _MAX_TOKENS)
        return Usage(ceil(len(request.raw) / _BYTES_A_TOKEN), longest * max(request.choices, 1))

    def _uses(self, situation: Situation, usage: Usage) -> list[Use]:
        principal, model = situation.principal, situation.request.model
        scoped: list[tuple[tuple[str, ...], Limit]] = []
        scoped += [(("principal", principal.key), limit) for limit in self._principal]
        scoped += [(("tenant", principal.tenant), limit) for limit in self._tenant]
        for glob, limits in self._models.items():
            if fnmatchcase(model, glob):
                scoped += [(("model", glob), limit) for limit in limits]
        uses = []
        for scope, limit in scoped:
            amount = self._amount(limit.unit, model, usage)
            if amount is not None:
                uses.append(Use(scope, limit, amount))
            elif not self._unknown_price:
                raise _no_price(model)
        return uses

    def _amount(self, unit: Unit, model: str, usage: Usage) -> int | None:
        """What the request uses of a unit; None for money that nobody knows."""
        if unit == "requests":
            return 1
        # The provider says how many: what no counter can hold is held to what one can.
        input_tokens = min(max(usage.input_tokens, 0), _MAX_TOKENS)
        output_tokens = min(max(usage.output_tokens, 0), _MAX_TOKENS)
        if unit == "tokens":
            return input_tokens + output_tokens
        cost = self._cost_usd(model, Usage(input_tokens, output_tokens))
        return None if cost is None else ceil(cost * 1e6)


_WHOSE = {"principal": "You", "tenant": "All users of your tenant together", "model": "All users together"}


def _refusal(exc: Exceeded) -> Refused:
    limit, use = exc.limit, exc.use
    amount, wanted = _spelled(limit, limit.amount), _spelled(limit, use.amount)
    of = f" of the models {use.scope[1]}" if use.scope[0] == "model" else ""
    a_window = f"{'an' if limit.window == 'hour' else 'a'} {limit.window}"
    verb = {"requests": "send", "micro_usd": "spend"}.get(limit.unit, "use")
    may = f"{_WHOSE[use.scope[0]]} may {verb} {amount}{of} {a_window}"
    if exc.retry_after_s is None:
        cure = f"this request alone may {verb} {wanted} (shorten it, or bound its answer)"
    else:
        cure = f"try again in {in_words(exc.retry_after_s)}"
    code = "insufficient_quota" if limit.unit == "micro_usd" else "rate_limit_exceeded"
    return Refused(429, code, f"{may}; {cure}.", retry_after_s=exc.retry_after_s)


def _spelled(limit: Limit, amount: int) -> str:
    if limit.unit == "micro_usd":
        return f"{amount / 1e6:g} US dollars"
    return f"{amount} {limit.unit if amount != 1 else limit.unit.removesuffix('s')}"


def _no_price(model: str) -> Refused:
    message = (
        f"The model {model[:128]!r} has no price, so a limit in US dollars cannot be kept "
        "(the operator can set guards.limits.prices, or guards.limits.unknown_price: allow)."
    )
    return Refused(403, "price_unknown", message, "model")
