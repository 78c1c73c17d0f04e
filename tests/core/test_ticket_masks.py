"""What policy masks is not in the record of the question either; the person who is asked sees it."""

from __future__ import annotations

import json
from typing import Any

from proxy.record import TicketRecord
from tests.core.harness import run


async def test_what_is_masked_is_masked_in_the_question_that_is_recorded() -> None:
    case: dict[str, Any] = {
        "request": {"tools": ["drop"]},
        "policy": {"drop": {"effect": "confirm", "obligations": {"mask": ["/card/number"]}}},
        "upstream": [{"calls": [{"name": "drop", "arguments": {"card": {"number": "4111"}, "b": 2}}]}],
    }
    outcome = await run(case, stream=False)
    (record,) = [record for record in outcome.records if isinstance(record, TicketRecord)]
    assert "4111" not in json.dumps(record.fields())
    assert '"number":"[masked]"' in record.question
    assert "b = 2" in record.question
