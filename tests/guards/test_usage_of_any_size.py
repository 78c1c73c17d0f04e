"""Usage as no provider should report it: it costs no record, gives nothing back, and spends nothing."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.guards.prices import Price, Prices
from proxy.model import Usage
from proxy.wire.codec import MAX_TOKENS, tokens
from tests.core import harness

HUGE = 10**400
PRICES = {"*": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}}
PRICED: dict[str, Any] = {"limits": {"usd_per_day": 5, "prices": PRICES}}
ANSWER: dict[str, Any] = {"text": "hi", "usage": {"input": 424242, "output": 737373}}


@pytest.mark.parametrize("stream", [False, True], ids=["body", "stream"])
@pytest.mark.parametrize("protocol", ["chat", "responses", "messages"])
@pytest.mark.parametrize("used", [(HUGE, 1), (1, HUGE), (-7, 0), (-HUGE, -HUGE)])
async def test_the_exchange_leaves_its_record(
    used: tuple[int, int], protocol: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd(harness.FakeUpstream):
        def _cut(self, raw: bytes) -> list[bytes]:
            said = raw.replace(b"424242", b"%d" % used[0]).replace(b"737373", b"%d" % used[1])
            assert said != raw
            return super()._cut(said)

    monkeypatch.setattr(harness, "FakeUpstream", Odd)
    outcome = await harness.run(PRICED | {"upstream": [ANSWER]}, stream, protocol=protocol)
    assert outcome.exchange.outcome == "answered"
    assert outcome.exchange.cost_usd is not None
    assert outcome.exchange.cost_usd >= 0


@pytest.mark.parametrize(
    ("used", "usd"),
    [
        (Usage(-1_000_000, 2_000_000), 4.0),
        (Usage(1_000_000, -2_000_000), 1.0),
        (Usage(-HUGE, -1), 0.0),
        (Usage(10**12, 0), 1e6),
        (Usage(HUGE, 0), 1e6),
    ],
)
def test_what_it_costs(used: Usage, usd: float) -> None:
    assert Prices({"m": Price(1.0, 2.0)}).cost_usd("m", used) == usd


@pytest.mark.parametrize(
    ("said", "counted"),
    [(7, 7), (1500.0, 1500), (1e300, MAX_TOKENS), (HUGE, MAX_TOKENS)]
    + [(odd, 0) for odd in (-7, -1e9, True, 1.5, float("nan"), float("inf"), "7", None, [7])],
)
def test_what_counts(said: Any, counted: int) -> None:
    assert tokens(said) == counted
