"""What a client makes of a Messages answer: a strict reading that refuses what clients stumble over."""

from __future__ import annotations

from typing import Any

import orjson

from tests.core.view import Answer, View

FINISHES = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length"}
# The cases speak of errors by Callgate's codes, and by OpenAI's for what the provider itself said.
CODES = {"rate_limit_error": "rate_limit_exceeded"}


def read(data: bytes, stream: bool) -> Answer:
    return _Stream().read(data) if stream else _read_body(orjson.loads(data))


def _read_body(body: dict[str, Any]) -> Answer:
    if body["type"] == "error":
        return Answer(error=_error(body), done=True)
    answer = Answer(usage=body["usage"], usages=1, ids={body["id"]}, done=True)
    view = answer.choices.setdefault(0, View(finish=FINISHES.get(body["stop_reason"], body["stop_reason"])))
    assert body["content"], "an empty content poisons the history"
    for block in body["content"]:
        assert block["type"] != "text" or block["text"], "an empty text poisons the history"
        _take(view, block, block.get("input"))
    return answer


def _error(body: dict[str, Any]) -> dict[str, Any]:
    error = body["error"]
    assert error["type"].endswith("_error") or error["type"] == "request_too_large"
    return {"code": error.get("code") or CODES.get(error["type"], error["type"]), **error}


def _take(view: View, block: dict[str, Any], arguments: Any) -> None:
    if block["type"] == "text":
        view.text += block["text"]
    if block["type"] == "tool_use":
        assert isinstance(arguments, dict)
        written = orjson.dumps(arguments).decode()
        view.calls.append({"id": block["id"], "name": block["name"], "arguments": written})


class _Stream:
    """The state of a client that demands the order in which Anthropic itself sends events."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.block: dict[str, Any] | None = None
        self.pieces: list[str] = []
        self.blocks = 0

    def read(self, data: bytes) -> Answer:
        for frame in data.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n\n"):
            lines = [line.partition(":") for line in frame.split("\n") if line]
            fields = {name: value.removeprefix(" ") for name, _, value in lines if name}
            if "data" in fields:
                joined = "\n".join(value.removeprefix(" ") for name, _, value in lines if name == "data")
                self.take(fields.get("event"), orjson.loads(joined))
        return self.answer

    def take(self, name: str | None, wire: dict[str, Any]) -> None:
        assert name == wire["type"], "an event is named by its type"
        assert not self.answer.done, "nothing follows the end"
        if name not in ("ping", "error", "message_start"):
            assert self.answer.ids, "the message begins first"
        getattr(self, f"on_{name}")(wire)

    def on_ping(self, wire: dict[str, Any]) -> None:
        pass

    def on_error(self, wire: dict[str, Any]) -> None:
        self.answer.error = _error(wire)

    def on_message_start(self, wire: dict[str, Any]) -> None:
        assert not self.answer.ids, "a message begins once"
        assert wire["message"]["content"] == []
        self.answer.ids.add(wire["message"]["id"])
        self.answer.usage = wire["message"].get("usage")
        self.answer.choices[0] = View()

    def on_content_block_start(self, wire: dict[str, Any]) -> None:
        assert self.block is None, "one block after the other"
        assert wire["index"] == self.blocks, "blocks are numbered from 0"
        self.block, self.pieces = dict(wire["content_block"]), []
        if self.block["type"] == "tool_use":
            assert self.block["input"] == {}
            assert self.block["id"]
            assert self.block["name"]

    def on_content_block_delta(self, wire: dict[str, Any]) -> None:
        assert self.block is not None
        assert wire["index"] == self.blocks
        delta = wire["delta"]
        match delta["type"]:
            case "text_delta":
                self.block["text"] += delta["text"]
            case "input_json_delta":
                self.pieces.append(delta["partial_json"])

    def on_content_block_stop(self, wire: dict[str, Any]) -> None:
        assert self.block is not None
        assert wire["index"] == self.blocks
        text = "".join(self.pieces)
        _take(self.answer.first, self.block, orjson.loads(text) if text else self.block.get("input"))
        self.block, self.blocks = None, self.blocks + 1

    def on_message_delta(self, wire: dict[str, Any]) -> None:
        assert self.block is None, "every block ends before its message"
        view = self.answer.first
        assert view.finish is None, "a message ends once"
        view.finish = FINISHES.get(wire["delta"]["stop_reason"], wire["delta"]["stop_reason"])
        self.answer.usages += 1
        self.answer.usage = {**(self.answer.usage or {}), **wire["usage"]}

    def on_message_stop(self, wire: dict[str, Any]) -> None:
        assert self.answer.first.finish, "a message says why it ends"
        self.answer.done = True
