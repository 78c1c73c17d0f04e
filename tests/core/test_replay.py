"""Recorded decisions judged again: what the log holds is enough, and what changes is told truly."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from proxy.record import DecisionRecord, Record, Step
from proxy.replay import Asked, Rebuilder, Replay, Side
from proxy.sinks.chain import Chain, Link
from proxy.sinks.reading import record_of
from tests.core.harness import FakeEngine, World, run
from tests.core.protocols import PROTOCOLS
from tests.core.test_cases import CASES


def read_back(records: Iterable[Record]) -> list[DecisionRecord]:
    """The decisions as they stand in a log."""
    chain = Chain(Link())
    read = [record_of(orjson.loads(chain.append(record.fields()))) for record in records]
    return [record for record in read if isinstance(record, DecisionRecord)]


def rebuilt(records: Iterable[DecisionRecord]) -> list[Asked]:
    rebuilder = Rebuilder()
    asked = [asked for record in records for asked in rebuilder.feed(record)]
    asked += rebuilder.finish()
    return sorted(
        asked, key=lambda one: [record.decision_id for record in records].index(one.record.decision_id)
    )


def without(document: Any, missing: Sequence[str]) -> Any:
    """The document without what the log does not tell."""
    document = copy.deepcopy(document)
    for pointer in missing:
        place, parts = document, [int(part) if part.isdigit() else part for part in pointer.split("/")[1:]]
        for part in parts[:-1]:
            place = place[part]
        place[parts[-1]] = "missing"
    return document


@pytest.mark.parametrize(("case", "protocol"), CASES)
async def test_a_record_tells_what_policy_was_told(case: dict[str, Any], protocol: str) -> None:
    outcome = await run(case, stream=False, protocol=protocol)
    if case.get("engine") == "starter":
        return
    found = rebuilt(read_back(outcome.records))
    assert len(found) == len(outcome.engine.inputs)
    for asked, told in zip(found, outcome.engine.inputs, strict=True):
        assert without(asked.document, asked.missing) == without(told, asked.missing)
        # A case's records are of one request: what it says of earlier ones is in no record.
        assert all(pointer.startswith("/history/calls/") for pointer in asked.missing)
