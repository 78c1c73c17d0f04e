"""What a client is told of its answer: one shape over all rounds, and the charset that it was read in."""

from __future__ import annotations

import json

import pytest

from proxy.delivery import Delivery
from proxy.ports import Headers, UpstreamFailed
from tests.core.harness import FakeReply
from tests.core.protocols import PROTOCOLS

TEXT = json.dumps({"content": "x+ACI-,+ACI-tool_calls+ACI-:[],+ACI-y+ACI-:+ACI-"})


class Down:
    def __init__(self) -> None:
        self.headers: Headers = ()
        self.holding = False

    async def begin(self, status: int, headers: Headers, keepalive: bytes | None) -> None:
        self.headers = headers

    async def send(self, data: bytes) -> None:
        return


async def head(*types: str) -> list[str]:
    """The types that the client is told."""
    down = Down()
    headers = tuple(("Content-Type", value) for value in types)
    media = types[0].partition(";")[0] if types else ""
    delivery = Delivery(PROTOCOLS["chat"].codec, down)
    await delivery.begin(FakeReply(200, (("x-a", "b"), *headers), media, [], ""))
    await delivery.raw(b"x")
    assert ("x-a", "b") in down.headers
    return [value for name, value in down.headers if name.lower() == "content-type"]


def test_in_utf7_a_text_is_a_call() -> None:
    assert "tool_calls" not in json.loads(TEXT)
    assert "tool_calls" in json.loads(TEXT.encode().decode("utf-7"))


@pytest.mark.parametrize("media", ["application/json", "text/event-stream"])
@pytest.mark.parametrize(
    "charset",
    ["; charset=utf-7", ';x=1;charset="utf-16"', "; Charset = gbk", "; charset=utf-8; charset=utf-7"],
)
async def test_another_charset_is_not_told(media: str, charset: str) -> None:
    assert await head(media + charset) == [media]


@pytest.mark.parametrize("media", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("rest", ["", "; charset=utf-8", ';charset="UTF-8"', "; charset=utf8", "; x=1", ";"])
async def test_what_says_utf8_or_nothing_goes_on_as_it_is(media: str, rest: str) -> None:
    assert await head(media + rest) == [media + rest]


async def test_one_type_is_told() -> None:
    assert await head("application/json", "text/event-stream") == ["application/json"]
    assert await head() == ["application/json"]


@pytest.mark.parametrize(
    ("first", "then"), [("text/event-stream", "application/json"), ("application/json", "text/event-stream")]
)
async def test_an_answer_keeps_its_shape_over_all_rounds(first: str, then: str) -> None:
    delivery = Delivery(PROTOCOLS["chat"].codec, Down())
    for _ in range(2):
        await delivery.begin(FakeReply(200, (), first, [], ""))
    with pytest.raises(UpstreamFailed, match="between stream and body") as caught:
        await delivery.begin(FakeReply(200, (), then, [], ""))
    assert (caught.value.status, caught.value.code) == (502, "upstream_malformed")
