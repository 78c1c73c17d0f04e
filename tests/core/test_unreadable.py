"""Whatever fails inside, and wherever it is met again: the client gets an error, and one record is left."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

from tests.core.harness import run
from tests.core.protocols import PROTOCOLS

CASE: dict[str, Any] = {"request": {}, "upstream": [{"text": "Never asked."}]}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_request_that_cannot_be_read_leaves_a_record(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> NoReturn:
        raise TypeError("a fault of Callgate's own")

    monkeypatch.setattr(type(PROTOCOLS[protocol].codec), "history", broken)
    outcome = await run(CASE, stream=False, protocol=protocol)
    assert outcome.client.status == 500
    assert b"fault of Callgate" not in outcome.client.data
    assert (outcome.exchange.outcome, outcome.exchange.query) == ("failed", None)
    assert outcome.upstream.asks == []
