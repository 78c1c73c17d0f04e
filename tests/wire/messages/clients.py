"""What clients make of a Messages stream: the anthropic SDK, and models of how others put calls together.

Clients differ in whether they go by an event's name or its type, by a block's index or the latest block, and
by an input's deltas or its beginning. All of them have to find the same calls in what the proxy sends.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import orjson
from anthropic import Anthropic, APIStatusError

Json = dict[str, Any]
Calls = list[tuple[str, str, Json]]


class Failed(Exception):
    """The client reports an error and runs nothing."""


def events(data: bytes) -> Iterator[tuple[str, Json]]:
    """Each event's name and object."""
    for frame in data.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n\n")[:-1]:
        lines = [line.partition(":") for line in frame.split("\n")]
        name = next((value.strip() for key, _, value in lines if key == "event"), "")
        payload = "\n".join(value.removeprefix(" ") for key, _, value in lines if key == "data")
        if payload:
            wire = orjson.loads(payload)
            if wire["type"] == "error":
                raise Failed(wire["error"]["message"])
            yield name, wire


def _built(named: bool, latest: bool, from_start: bool, data: bytes) -> Calls:
    """A client that goes by names or types, by index or the latest block, by an input's start or not."""
    blocks: dict[Any, Json] = {}
    order: list[Json] = []
    stopped = False
    for name, wire in events(data):
        kind = name if named else wire["type"]
        if kind == "content_block_start":
            block = {"pieces": "", **wire["content_block"]}
            blocks[wire["index"]] = block
            order.append(block)
        elif kind == "content_block_delta" and wire["delta"]["type"] == "input_json_delta":
            (order[-1] if latest else blocks[wire["index"]])["pieces"] += wire["delta"]["partial_json"]
        stopped = stopped or kind == "message_stop"
    if not stopped:
        raise Failed("no end")
    return [_call(block, from_start) for block in order if block["type"] == "tool_use"]


def _call(block: Json, from_start: bool) -> tuple[str, str, Json]:
    written = block["pieces"] or (orjson.dumps(block["input"]).decode() if from_start else "{}")
    return block["id"], block["name"], orjson.loads(written)


def by_sdk(data: bytes) -> Calls:
    """The official client's own helper."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=data, headers={"content-type": "text/event-stream"})

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    with Anthropic(api_key="k", base_url="http://callgate", http_client=http, max_retries=0) as client:
        try:
            with client.messages.stream(model="m", max_tokens=1, messages=[]) as stream:
                message = stream.get_final_message()
        except APIStatusError as exc:
            raise Failed(str(exc)) from exc
    if message.stop_reason is None:
        raise Failed("no end")
    return [(b.id, b.name, dict(b.input)) for b in message.content if b.type == "tool_use"]


def _modelled(named: bool, latest: bool, from_start: bool) -> Callable[[bytes], Calls]:
    return lambda data: _built(named, latest, from_start, data)


_WAYS = itertools.product((True, False), repeat=3)
CLIENTS: dict[str, Callable[[bytes], Calls]] = {"the SDK": by_sdk} | {
    f"named={way[0]}, latest={way[1]}, from_start={way[2]}": _modelled(*way) for way in _WAYS
}
