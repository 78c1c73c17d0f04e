"""Writing the one body that the client sees, over all rounds behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.model import Passage, Turn
from proxy.wire.chat.reading import ChatTurn, together
from proxy.wire.chat.rewriting import Continuity, Forwarded, error_body, go_on_as_written, without_calls
from proxy.wire.writing import write_json

_TEXT_FIELDS = ("content", "reasoning_content", "reasoning")


class BodyEncoder:
    """Writes a whole answer; as long as nothing had to change, with the provider's own bytes."""

    def __init__(self) -> None:
        self._continuity = Continuity()
        self._said: dict[str, list[Any]] = {}

    def passage(self, passage: Passage) -> bytes:
        return passage.raw

    def settle(self, turn: Turn) -> bytes:
        wire: ChatTurn = turn.wire
        self._continuity.see(wire.body[1] if wire.body else {})
        message = wire.message()
        for key in _TEXT_FIELDS:
            if isinstance(text := message.get(key), (str, list)) and text:
                self._said.setdefault(key, []).append(text)
        self._continuity.settle(turn)
        return b""

    def release(self, turn: Turn, arguments: Sequence[str | None], notices: Mapping[int, str]) -> bytes:
        raw, wire = turn.wire.body
        as_written = go_on_as_written(turn, arguments)
        if self._continuity.rounds == 0 and turn.wire.canonical and as_written:
            return bytes(raw)
        forwarded = Forwarded(turn, arguments, notices)
        patched = self._continuity.patch(wire)
        if not isinstance(wire.get("usage"), dict) and self._continuity.usage is not None:
            patched["usage"] = self._continuity.usage
        choices = [self._choice(choice, forwarded) for choice in wire.get("choices") or []]
        if not as_written:
            # Token by token they would spell the calls that do not go on.
            choices = [choice | ({"logprobs": None} if "logprobs" in choice else {}) for choice in choices]
        return write_json({**patched, "choices": choices})

    def _choice(self, choice: dict[str, Any], forwarded: Forwarded) -> dict[str, Any]:
        index = choice.get("index", 0)
        message = {"role": "assistant", **(choice.get("message") or {})}
        message |= {key: self._together(key, message.get(key)) for key in self._said}
        if index not in forwarded.choices:
            return {**choice, "message": message}
        message = without_calls(message) | forwarded.message_fields(index)
        if not forwarded.any(index):
            message["content"] = _followed_by(message.get("content"), forwarded.notices.get(index, ""))
        finish = forwarded.finish(index, choice.get("finish_reason"))
        return {**choice, "message": message, "finish_reason": finish}

    def _together(self, key: str, now: Any) -> Any:
        return together([*self._said[key], now] if isinstance(now, (str, list)) else self._said[key])

    def finish(self, text: str) -> bytes:
        said = {key: together(pieces) for key, pieces in self._said.items()}
        message = {"role": "assistant", **said, "content": _followed_by(said.get("content"), text)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        body = {"object": "chat.completion", **self._continuity.head, "choices": [choice]}
        return write_json(body | ({"usage": self._continuity.usage} if self._continuity.usage else {}))

    def status(self, text: str) -> bytes:
        return b""

    def error(self, status: int, code: str, message: str) -> bytes:
        return error_body(status, code, message)


def _followed_by(content: Any, text: str) -> Any:
    """The content with more text; content in parts stays so."""
    said = [content] if isinstance(content, (str, list)) else []
    return together([*said, text]) if text or not said else content
