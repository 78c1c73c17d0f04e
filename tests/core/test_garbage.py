"""What was answered is gone at once: nothing of it waits for the garbage collector, which stops everybody."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.harness import run
from tests.core.test_cases import CASES, STREAM_OR_BODY
from tests.garbage import garbage

OF_A_REQUEST = (
    *("proxy.delivery", "proxy.exchange", "proxy.journal", "proxy.model", "proxy.pipeline"),
    *("proxy.record", "proxy.settlements", "proxy.verdicts", "proxy.wire"),
)


def of_a_request(each: object) -> str:
    kind = type(each)
    return kind.__qualname__ if kind.__module__.startswith(OF_A_REQUEST) else ""


@STREAM_OR_BODY
@pytest.mark.parametrize(("case", "protocol"), CASES)
async def test_a_request_leaves_no_garbage(case: dict[str, Any], protocol: str, stream: bool) -> None:
    with garbage(of_a_request) as found:
        await run(case, stream, protocol=protocol)
    assert found == {}


def test_garbage_is_found() -> None:
    class Held:
        pass

    Held.__module__ = "proxy.wire.x"
    with garbage(of_a_request) as found:
        one = Held()
        one.itself = one  # type: ignore[attr-defined]
        del one
    assert sum(found.values()) == 1
