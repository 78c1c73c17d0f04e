"""What a model's tokens cost, by the provider's list price or the operator's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import TieredPrices

from proxy.model import Usage

_MAX_MODEL_CHARS = 128
_MAX_MODELS = 1024
# The provider says how many: no answer gives money back, and none has more than a float can multiply.
_MAX_TOKENS = 10**12


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens."""

    input_usd: float
    output_usd: float
    long: tuple[tuple[int, float, float], ...] = ()
    """The same two prices for requests with more input tokens than this, the longest last."""

    def of(self, usage: Usage) -> float:
        """What these tokens cost, in US dollars. Cached input counts as any other: the bill may be lower."""
        input_tokens = min(max(usage.input_tokens, 0), _MAX_TOKENS)
        output_tokens = min(max(usage.output_tokens, 0), _MAX_TOKENS)
        input_usd, output_usd = self.input_usd, self.output_usd
        for more_than, longer_in, longer_out in self.long:
            if input_tokens > more_than:
                input_usd, output_usd = longer_in, longer_out
        return (input_tokens * input_usd + output_tokens * output_usd) / 1e6


class Prices:
    """Prices by model: the operator's, by the first glob that matches, else the providers' list prices.

    List prices come with the package ``genai-prices``; nothing is fetched.
    """

    def __init__(
        self,
        own: Mapping[str, Price] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._own, self._now = own or {}, now
        get_snapshot()  # read and kept by the package: now, and not while the first request waits
        # Clients write model names: what is kept for them is bounded, and misses are kept too.
        self._find = lru_cache(_MAX_MODELS)(self._look_up)

    def find(self, model: str) -> Price | None:
        """The model's price; None where nobody says."""
        return self._find(model) if 0 < len(model) <= _MAX_MODEL_CHARS else None

    def cost_usd(self, model: str, usage: Usage) -> float | None:
        """What the tokens cost; None where the model has no price."""
        price = self.find(model)
        return None if price is None else price.of(usage)

    def _look_up(self, model: str) -> Price | None:
        for glob, price in self._own.items():
            if fnmatchcase(model, glob):
                return price
        return _listed(model, self._now())


def _listed(model: str, now: datetime) -> Price | None:
    # Not by the package's own look-up, which keeps every name that it was ever asked for.
    name, providers = model.lower(), get_snapshot().providers
    for provider in providers:
        if provider.model_match is None or not provider.model_match.is_match(name):
            continue
        found = provider.find_model(name, all_providers=providers)
        if found is None:
            return None
        listed = found.get_prices(now)
        return _price(listed.input_mtok, listed.output_mtok)
    return None


def _price(input_mtok: Any, output_mtok: Any) -> Price | None:
    if input_mtok is None and output_mtok is None:
        return None
    starts = sorted({tier.start for price in (input_mtok, output_mtok) for tier in _tiers(price)})
    longer = tuple((start, _at(input_mtok, start), _at(output_mtok, start)) for start in starts)
    return Price(_at(input_mtok, -1), _at(output_mtok, -1), longer)


def _at(price: Any, start: int) -> float:
    """The price beyond ``start`` input tokens."""
    if not isinstance(price, TieredPrices):
        return float(price or 0)
    reached = [tier.price for tier in sorted(price.tiers, key=lambda tier: tier.start) if tier.start <= start]
    return float(reached[-1] if reached else price.base)


def _tiers(price: Any) -> Sequence[Any]:
    return price.tiers if isinstance(price, TieredPrices) else ()
