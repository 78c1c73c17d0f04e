"""Turns that wait for a person: the client is asked, and the records say what became of each call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.core.harness import run
from tests.core.protocols import PROTOCOLS
from tests.core.test_cases import STREAM_OR_BODY, check_client, check_records

CASES = [
    pytest.param(case, protocol, id=f"{protocol}-{case['name']}")
    for case in yaml.safe_load(Path(__file__).with_name("held.yaml").read_text())
    for protocol in case.get("protocols", PROTOCOLS)
]


@STREAM_OR_BODY
@pytest.mark.parametrize(("case", "protocol"), CASES)
async def test_case(case: dict[str, Any], protocol: str, stream: bool) -> None:
    outcome = await run(case, stream, protocol=protocol)
    answer = PROTOCOLS[protocol].read(outcome.client.data, stream)
    check_client(case["client"], outcome, answer, stream)
    check_records(case, outcome)
    waiting = [r.reasons for r in outcome.decisions if (r.verdict, r.effect) == ("Allow", "hold")]
    assert waiting == [("Another call of the turn waits for a person.",)]
