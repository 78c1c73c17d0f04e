"""While nothing can be sent, a stream is kept alive; a silent provider is not hidden by that."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.http.answering import Client
from proxy.wire.sse import SseDecoder
from tests.http.conftest import Serve
from tests.http.harness import DROP, GET, RawAnswer, ask, http, post, talk

KEPT = b": keep-alive\n\n"
QUICK = {"keepalive_s": 0.1}


async def test_a_held_call_is_bridged(serve: Serve) -> None:
    turn = {"text": "Hm. ", "calls": [GET], "gap_ms": 150, "chunk_chars": 100}
    callgate = await serve(turn, limits=QUICK)
    answer = await post(callgate.port, ask(stream=True))
    text, _, held = answer.body.partition(b"Hm. ")
    assert KEPT not in text, "there was text to wait for, and nothing was held"
    assert held.count(KEPT) >= 2
    assert _without_keepalives(answer) == (await _direct(callgate.provider.url)).body
    assert held.rstrip().endswith(b"data: [DONE]"), "nothing follows the end"


async def test_a_second_round_is_bridged(serve: Serve) -> None:
    callgate = await serve({"calls": [DROP]}, {"text": "I may not.", "delay_ms": 350}, limits=QUICK)
    answer = await post(callgate.port, ask(stream=True))
    before, _, _ = answer.body.partition(b"I may not.")
    assert before.count(KEPT) >= 2
    assert all(
        frame.startswith((b"data: {", b"data: [DONE]")) for frame in _frames(_without_keepalives(answer))
    )


@pytest.mark.parametrize(
    "turn", [{"text": "Hello there, you.", "gap_ms": 250}, {"text": "a", "delay_ms": 250}]
)
async def test_a_provider_that_is_merely_silent_stays_silent(serve: Serve, turn: dict[str, Any]) -> None:
    callgate = await serve(turn, limits=QUICK)
    assert KEPT not in (await post(callgate.port, ask(stream=True))).body


async def test_a_body_gets_none(serve: Serve) -> None:
    callgate = await serve({"calls": [DROP]}, {"text": "I may not.", "delay_ms": 250}, limits=QUICK)
    answer = await post(callgate.port, ask())
    assert orjson.loads(answer.body)["choices"][0]["message"]["content"] == "I may not."


class _Answer:
    """What was written of a stream."""

    def __init__(self) -> None:
        self.written = b""

    async def write(self, data: bytes) -> None:
        self.written += data


@pytest.mark.parametrize("ends", ["goes on", "is over"])
async def test_none_follows_when_the_answer_moves_on_as_the_timer_rings(ends: str) -> None:
    client: Any = Client(None, "t", 60)  # type: ignore[arg-type]
    client.response, client._keepalive = _Answer(), KEPT
    client.holding = True
    client._keepalive_s = 0
    client._look()  # the timer rings; the keep-alive is about to be written
    client._keepalive_s = 60
    if ends == "goes on":
        client.holding = False
    else:
        client.close()
    await client._alive
    client.close()
    assert client.response.written == b""


def _without_keepalives(answer: RawAnswer) -> bytes:
    """The frames but the keep-alives; one inside a frame would leave the frame broken."""
    return b"".join(frame for frame in _frames(answer.body) if frame != KEPT)


def _frames(body: bytes) -> list[bytes]:
    return [frame.raw for frame in SseDecoder(2**20).feed(body)]


async def _direct(url: str) -> RawAnswer:
    port = int(url.rsplit(":", 1)[1].removesuffix("/v1"))
    return RawAnswer(await talk(port, http("POST", "/v1/chat/completions", orjson.dumps(ask(stream=True)))))
