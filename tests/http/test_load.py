"""Many at once: each gets its own answer, each leaves its records, nothing grows without bound."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import aiohttp
import orjson
import pytest

from tests.http.conftest import Serve
from tests.http.harness import DROP, GET, ask, scripted

REQUESTS = 200
# Model -> what it does, and the outcome, rounds and calls of it.
KINDS: dict[str, tuple[list[dict[str, Any]], tuple[str, int, int]]] = {
    "text": ([{"text": "Hello there."}], ("answered", 1, 0)),
    "call": ([{"text": "Hm. ", "calls": [GET], "write_bytes": 50}], ("forwarded", 1, 1)),
    "denied": ([{"calls": [DROP]}, {"text": "I may not."}], ("answered", 2, 1)),
    "mixed": ([{"calls": [GET, DROP]}], ("mixed", 1, 2)),
    "cut": ([{"calls": [GET], "fault": {"kind": "cut", "after_frames": 3}}], ("upstream_error", 1, 0)),
}
WANTED = {
    "text": (b"Hello there.", b"get_user"),
    "call": (b"get_user", b"drop_table"),
    "denied": (b"I may not.", b"drop_table"),
    "mixed": (b"get_user", b"drop_table"),
    "cut": (b"error", b"get_user"),
}


async def test_two_hundred_at_once(serve: Serve) -> None:
    scripts = [scripted(*turns, model=model) for model, (turns, _) in KINDS.items()]
    callgate = await serve(*scripts)
    models = list(KINDS)

    async def one(number: int, session: aiohttp.ClientSession) -> tuple[str, str]:
        model = models[number % len(models)]
        body = ask(
            model=model, stream=number % 2 == 0, messages=[{"role": "user", "content": f"go {number}"}]
        )
        async with session.post(callgate.url + "/chat/completions", json=body) as answer:
            said = b"".join(frame for frame in await _text(answer))
            wanted, unwanted = WANTED[model]
            assert wanted in said, (model, said)
            assert unwanted not in said, (model, said)
            return answer.headers["x-callgate-trace-id"], model

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        seen = await asyncio.gather(*(one(number, session) for number in range(REQUESTS)))
    assert len({trace for trace, _ in seen}) == REQUESTS
    exchanges = await callgate.records("exchange")
    decisions = await callgate.records("decision")
    assert {record["trace_id"]: record["gen_ai.request.model"] for record in exchanges} == dict(seen)
    assert len(exchanges) == REQUESTS
    for record in exchanges:
        _, expected = KINDS[record["gen_ai.request.model"]]
        assert (record["outcome"], record["rounds"], record["calls"]) == expected
    calls = Counter(record["trace_id"] for record in decisions)
    assert calls == Counter({record["trace_id"]: record["calls"] for record in exchanges if record["calls"]})
    assert len({record["decision_id"] for record in decisions}) == len(decisions)
    ids = [id for record in exchanges for id in record["decisions"]]
    assert sorted(ids) == sorted(record["decision_id"] for record in decisions)


async def test_open_streams_do_not_wait_for_one_another(serve: Serve) -> None:
    """A pool with a bound would let idle answers keep others from being asked for at all."""
    callgate = await serve({"text": "a", "fault": {"kind": "stall"}})
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.timeout(10):
        url, body = callgate.url + "/chat/completions", ask(stream=True)
        answers = await asyncio.gather(*(session.post(url, json=body) for _ in range(150)))
        await callgate.provider.received(150)
        for answer in answers:
            answer.close()
        await callgate.provider.disconnected(150)
    assert {record["outcome"] for record in await callgate.records("exchange")} == {"cancelled"}


async def _text(answer: aiohttp.ClientResponse) -> list[bytes]:
    """What an answer says, with the fragments of its text joined."""
    raw = await answer.read()
    if answer.content_type != "text/event-stream":
        return [raw]
    frames = [line[6:] for line in raw.split(b"\n") if line.startswith(b"data: {")]
    content = [
        (choice.get("delta") or {}).get("content") or ""
        for frame in frames
        for choice in orjson.loads(frame).get("choices", [])
    ]
    return [*frames, "".join(content).encode()]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
async def test_what_is_kept_is_bounded(serve: Serve, session: aiohttp.ClientSession, stream: bool) -> None:
    callgate = await serve({"calls": [GET, DROP]}, store={"kind": "memory", "max_entries": 100})
    for number in range(150):
        body = ask(stream=stream, messages=[{"role": "user", "content": f"go {number}"}])
        async with session.post(callgate.url + "/chat/completions", json=body) as answer:
            assert b"get_user" in await answer.read()
    store: Any = callgate.app.store
    assert len(store._values) + len(store._claims) <= 100
    assert len(store._values) > 50, "what is newest is kept"
