"""What was answered is gone at once: nothing of it waits for the garbage collector, which stops everybody."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.core.harness import run
from tests.core.test_cases import CASES, STREAM_OR_BODY

OF_A_REQUEST = (
    *("proxy.delivery", "proxy.exchange", "proxy.journal", "proxy.model", "proxy.pipeline"),
    *("proxy.record", "proxy.settlements", "proxy.verdicts", "proxy.wire"),
)


@contextmanager
def garbage() -> Iterator[Counter[str]]:
    """Collects, by class, what one request is made of and only the collector could free."""
    found: Counter[str] = Counter()
    gc.disable()
    gc.freeze()  # what was there before is not looked at
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
    finally:
        gc.set_debug(0)
        gc.unfreeze()
        gc.enable()
        left = (type(each) for each in gc.garbage)
        found.update(kind.__qualname__ for kind in left if kind.__module__.startswith(OF_A_REQUEST))
        gc.garbage.clear()


@STREAM_OR_BODY
@pytest.mark.parametrize(("case", "protocol"), CASES)
async def test_a_request_leaves_no_garbage(case: dict[str, Any], protocol: str, stream: bool) -> None:
    with garbage() as found:
        await run(case, stream, protocol=protocol)
    assert found == {}


def test_garbage_is_found() -> None:
    class Held:
        pass

    Held.__module__ = "proxy.wire.x"
    with garbage() as found:
        one = Held()
        one.itself = one  # type: ignore[attr-defined]
        del one
    assert sum(found.values()) == 1
