"""Policies that change under load: every request is answered, by the revision that its record names."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from proxy.engines.sources.policyset import PolicySet
from tests.http.conftest import Serve
from tests.http.harness import GET, ask, scripted

FLIPS, AT_ONCE, AT_LEAST = 6, 8, 600
POLICIES = {
    "Allow": 'package callgate.call\n\ndecision := {"effect": "allow"}\n',
    "Deny": 'package callgate.call\n\ndecision := {"effect": "deny", "reasons": ["not now"]}\n',
}


@pytest.mark.timeout(120)
async def test_every_decision_is_that_of_the_revision_that_its_record_names(serve: Serve) -> None:
    callgate = await serve(scripted({"calls": [GET]}, {"text": "I may not."}))
    rego, engine = callgate.audit.parent / "policy.rego", callgate.app.engine
    changed = asyncio.Event()
    answers = 0
    wanted: dict[str, str] = {}

    async def change() -> None:
        for number in range(FLIPS):
            before = engine.revision
            verdict = list(POLICIES)[number % 2]
            rego.write_text(POLICIES[verdict])
            wanted[PolicySet.load([rego]).revision] = verdict
            while engine.revision == before:
                await asyncio.sleep(0.02)
        changed.set()

    async def keep_asking(session: aiohttp.ClientSession) -> None:
        nonlocal answers
        while not changed.is_set() or answers < AT_LEAST:
            async with session.post(callgate.url + "/chat/completions", json=ask()) as answer:
                said = await answer.read()
            assert answer.status == 200
            assert (b"call_get" in said) != (b"I may not." in said)
            answers += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(change(), *(keep_asking(session) for _ in range(AT_ONCE)))
    records: list[dict[str, Any]] = await callgate.records("decision")
    assert len(records) >= answers
    seen = {(record["policy_revision"], record["verdict"]) for record in records}
    assert set(wanted.items()) <= seen
    # The first policies allow this call too.
    assert len(seen) == len({revision for revision, _ in seen}) == 3
