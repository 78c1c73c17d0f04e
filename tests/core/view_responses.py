"""What a client makes of a response: a strict reading that refuses every shape clients stumble over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.core.view import Answer, View

Json = dict[str, Any]
_KEYS = {"function_call": "arguments", "custom_tool_call": "input", "mcp_approval_request": "arguments"}
_STEMS = {
    "response.function_call_arguments": "function_call",
    "response.custom_tool_call_input": "custom_tool_call",
}
_FINISH = {"max_output_tokens": "length", "content_filter": "content_filter"}


def read(data: bytes, stream: bool) -> Answer:
    body = _Stream().read(data) if stream else orjson.loads(data)
    return body if isinstance(body, Answer) else _answer(body)


def _answer(body: Json) -> Answer:
    if body.get("error") and "output" not in body:
        return Answer(error=body["error"], done=True)
    usage = body.get("usage")
    answer = Answer(usage=usage, usages=int(usage is not None), ids={body["id"]}, done=True)
    answer.error = body["error"]
    view = answer.choices[0] = View()
    _check_output(body["output"])
    for item in body["output"]:
        if item["type"] == "message":
            view.text += "".join(part["text"] for part in item["content"])
        elif item["type"].endswith(("_call", "_request")):
            key = _KEYS.get(item["type"])
            id = item.get("call_id") or item["id"]
            view.calls.append({"id": id, "name": item.get("name"), "arguments": item[key] if key else item})
    reason = (body["incomplete_details"] or {}).get("reason")
    view.finish = "tool_calls" if view.calls else _FINISH.get(reason, "stop")
    return answer


def _check_output(output: list[Json]) -> None:
    ids = [item["id"] for item in output]
    assert len(set(ids)) == len(ids), "no id comes twice"
    for item, after in zip(output, [*output[1:], {}], strict=False):
        if item["type"] == "reasoning":
            assert after.get("type") not in (None, "reasoning"), "reasoning is followed by what it led to"


@dataclass
class _Stream:
    sequence: int = 0
    response: Json = field(default_factory=dict)
    ended: Json | None = None
    items: list[Json] = field(default_factory=list)
    done: list[Json | None] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)

    def read(self, data: bytes) -> Any:
        for block in data.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n\n"):
            lines = [line for line in block.split("\n") if line and not line.startswith(":")]
            if not lines:
                continue
            event, text = "", ""
            for line in lines:
                name, _, value = line.partition(":")
                event = value.strip() if name == "event" else event
                text += value.removeprefix(" ") if name == "data" else ""
            wire = orjson.loads(text)
            if "error" in wire and wire.get("type", "error") == "error":
                return Answer(error=wire["error"])
            assert event in ("", wire["type"]), "an event is named as its type"
            assert self.ended is None, "nothing follows the end"
            assert wire["sequence_number"] == self.sequence, "events are numbered from 0"
            self.sequence += 1
            self._take(wire)
        assert self.ended is not None, "a response comes to an end"
        return self.ended

    def _take(self, wire: Json) -> None:
        type = wire["type"]
        if type in ("response.created", "response.in_progress"):
            assert self.sequence == (1 if type == "response.created" else 2), "a response begins once"
            self.response = self.response or wire["response"]
            assert wire["response"]["id"] == self.response["id"]
            assert wire["response"]["output"] == []
        elif type in ("response.completed", "response.incomplete"):
            self._end(wire)
        elif type == "response.output_item.added":
            assert wire["output_index"] == len(self.items), "items are numbered from 0"
            self.items.append(wire["item"])
            self.done.append(None)
            self.texts[wire["output_index"]] = ""
        elif type == "response.output_item.done":
            self._done(wire["output_index"], wire["item"])
        else:
            self._part(type, wire)

    def _part(self, type: str, wire: Json) -> None:
        index = wire["output_index"]
        assert wire["item_id"] == self.items[index]["id"], "ids do not change"
        assert self.done[index] is None, "nothing follows the end of an item"
        stem, _, what = type.rpartition(".")
        if stem in (*_STEMS, "response.output_text", "response.reasoning_summary_text"):
            key = "text" if stem not in _STEMS else _KEYS[_STEMS[stem]]
            if what == "delta":
                self.texts[index] += wire["delta"]
            else:
                assert wire[key] == self.texts[index], "the parts make up the whole"
        if stem in _STEMS:
            assert self.items[index]["type"] == _STEMS[stem]

    def _done(self, index: int, item: Json) -> None:
        added = self.items[index]
        assert self.done[index] is None, "an item ends once"
        for key in ("id", "type", "call_id", "name", "namespace"):
            assert item.get(key) == added.get(key), "an item stays the same"
        if item["type"] in ("function_call", "custom_tool_call"):
            key = _KEYS[item["type"]]
            assert added[key] == ""
            assert item[key] == self.texts[index]
        if item["type"] == "message":
            assert "".join(part["text"] for part in item["content"]) == self.texts[index]
        self.done[index] = item

    def _end(self, wire: Json) -> None:
        response = wire["response"]
        assert response["id"] == self.response["id"], "one answer has one id"
        assert response["created_at"] == self.response["created_at"]
        assert response["output"] == self.done, "the output is what was streamed"
        assert wire["type"] == f"response.{response['status']}"
        self.ended = response
