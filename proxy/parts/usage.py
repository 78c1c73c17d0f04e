"""What may be used, and what it costs: limits, the meter, prices."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import ceil

from proxy.config import Settings
from proxy.config.sections import CallLimits, RequestLimits
from proxy.guards.limits import LimitsGuard
from proxy.guards.meter import LimitsMeter
from proxy.guards.prices import Price, Prices
from proxy.guards.windows import WINDOWS, Limit, Unit
from proxy.stores.memory import MemoryStore
from proxy.stores.redis import RedisStore
from proxy.tools import Registry


def limits_guard(
    settings: Settings,
    registry: Registry,
    store: MemoryStore | RedisStore,
    clock: Callable[[], float] = time.time,
) -> LimitsGuard | None:
    """The limits on calls; None where there are none."""
    limits = settings.guards.limits
    tools = {glob: _limits(section, ("calls",)) for glob, section in limits.tools.items()}
    principal, tenant = _limits(limits, ("calls",)), _limits(limits.tenant, ("calls",))
    described = any(spec.limits is not None for spec in registry.specs.values())
    if not (principal or tenant or described or any(tools.values())):
        return None
    return LimitsGuard(store, principal, tenant, tools, clock)


def meter(
    settings: Settings,
    prices: Prices,
    store: MemoryStore | RedisStore,
    clock: Callable[[], float] = time.time,
) -> LimitsMeter | None:
    """The limits on requests; None where there are none."""
    limits = settings.guards.limits
    units: Sequence[Unit] = ("requests", "tokens", "micro_usd")
    models = {glob: _limits(section, units) for glob, section in limits.models.items()}
    principal, tenant = _limits(limits, units), _limits(limits.tenant, units)
    if not (principal or tenant or any(models.values())):
        return None
    return LimitsMeter(
        store,
        prices.cost_usd,
        principal=principal,
        tenant=tenant,
        models=models,
        output_tokens=limits.output_tokens,
        unknown_price=limits.unknown_price == "allow",
        enforce=limits.mode == "enforce",
        fail_open=limits.on_error == "allow",
        clock=clock,
    )


def priced(settings: Settings) -> Prices:
    """What tokens cost: the operator's prices before the providers' list prices."""
    return Prices(
        {
            glob: Price(price.input_usd_per_mtok, price.output_usd_per_mtok)
            for glob, price in settings.guards.limits.prices.items()
        }
    )


def _limits(section: CallLimits | RequestLimits, units: Sequence[Unit]) -> tuple[Limit, ...]:
    """What a section says of these units."""
    spelled = {"calls": "per", "requests": "requests_per", "tokens": "tokens_per", "micro_usd": "usd_per"}
    said = section.model_dump()
    found = []
    for unit in units:
        for window in WINDOWS:
            amount = said.get(f"{spelled[unit]}_{window}")
            if amount is not None:
                found.append(Limit(unit, ceil(amount * 1e6) if unit == "micro_usd" else amount, window))
    return tuple(found)
