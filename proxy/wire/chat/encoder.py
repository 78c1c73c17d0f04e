"""Writing the one Chat Completions answer that the client sees, over all rounds behind it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proxy.model import Passage, Turn, dumps
from proxy.wire.chat.calls import Building
from proxy.wire.chat.decoder import ChatTurn, ReadFrame

DONE = b"data: [DONE]\n\n"
_CALL_KEYS = ("tool_calls", "function_call")
# What the first round said of itself holds for the whole answer: clients refuse a change.
_HEAD_KEYS = ("id", "object", "created", "model", "system_fingerprint")
_TEXT_FIELDS = ("content", "reasoning_content", "reasoning")
# With these, a turn that forwards calls may end as the provider said.
_KEPT_FINISHES = {"length", "content_filter"}


def error_body(status: int, code: str, message: str, param: str | None = None) -> bytes:
    """An error in OpenAI's shape."""
    kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(status)
    kind = kind or ("invalid_request_error" if status < 500 else "server_error")
    return dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def add_usage(total: Any, more: Any) -> Any:
    """The sum of two usage objects, key by key and level by level."""
    if isinstance(total, dict) and isinstance(more, dict):
        return {key: add_usage(total.get(key), more.get(key)) for key in {**total, **more}}
    if _is_number(total) and _is_number(more):
        return total + more
    return total if more is None else more


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class _Continuity:
    """What holds over all rounds of one answer."""

    def __init__(self) -> None:
        self.head: dict[str, Any] = {}
        self.usage: dict[str, Any] | None = None
        self.rounds = 0

    def see(self, wire: dict[str, Any]) -> None:
        if not self.head.get("id"):
            self.head = {key: wire[key] for key in _HEAD_KEYS if key in wire}

    def settle(self, turn: Turn) -> None:
        usage = turn.wire.usage
        self.usage = add_usage(self.usage, usage) if self.usage is not None else usage
        self.rounds += 1

    def patch(self, wire: dict[str, Any]) -> dict[str, Any]:
        """A later round's object as part of the one answer."""
        patched = wire | self.head if self.rounds else dict(wire)
        if self.rounds and isinstance(usage := wire.get("usage"), dict):
            patched["usage"] = add_usage(self.usage, usage)
        return patched


def _unchanged(turn: Turn, arguments: Sequence[str | None]) -> bool:
    wire: ChatTurn = turn.wire
    return wire.canonical and all(
        slot.call.arguments_json == forwarded for slot, forwarded in zip(turn.slots, arguments, strict=True)
    )


class _Forwarded:
    """The calls that go on, by choice, renumbered from 0."""

    def __init__(self, turn: Turn, arguments: Sequence[str | None], notices: Mapping[int, str]) -> None:
        wire: ChatTurn = turn.wire
        self.notices = notices
        self._calls: dict[int, list[dict[str, Any]]] = {}
        self._legacy: dict[int, dict[str, Any]] = {}
        for slot, forwarded in zip(turn.slots, arguments, strict=True):
            self._calls.setdefault(slot.choice, [])
            if forwarded is not None:
                self._add(slot.choice, wire.wire_calls(slot.choice)[slot.index], forwarded)

    def _add(self, choice: int, building: Building, arguments: str) -> None:
        if building.type == "legacy":
            self._legacy[choice] = {"name": building.name, "arguments": arguments}
            return
        call = building.wire()
        if building.type == "custom":
            call["custom"] = call["custom"] | {"input": arguments}
        else:
            call["function"] = call["function"] | {"arguments": arguments}
        self._calls[choice].append(call)

    def touches(self, choice: int) -> bool:
        return choice in self._calls

    def any(self, choice: int) -> bool:
        return bool(self._calls.get(choice)) or choice in self._legacy

    def message_fields(self, choice: int) -> dict[str, Any]:
        """The call fields of a whole message."""
        if choice in self._legacy:
            return {"function_call": self._legacy[choice]}
        return {"tool_calls": self._calls[choice]} if self._calls.get(choice) else {}

    def deltas(self, choice: int) -> Iterator[dict[str, Any]]:
        """One delta a call, whole: the shape that every client reads alike. Or the notice."""
        if choice in self._legacy:
            yield {"function_call": self._legacy[choice]}
        for index, call in enumerate(self._calls.get(choice, [])):
            yield {"tool_calls": [{"index": index, **call}]}
        if not self.any(choice) and self.notices.get(choice):
            yield {"content": self.notices[choice]}

    def finish(self, choice: int, said: str | None) -> str:
        """The finish reason that matches what is left of the choice."""
        if not self.any(choice):
            return "stop"
        if said in _KEPT_FINISHES:
            return str(said)
        return "function_call" if choice in self._legacy else "tool_calls"


class StreamEncoder:
    """Writes an event stream; as long as nothing had to change, with the provider's own bytes."""

    def __init__(self) -> None:
        self._continuity = _Continuity()
        self._role_sent = False

    def passage(self, passage: Passage) -> bytes:
        if self._continuity.rounds == 0:
            if not self._role_sent:
                self._see(passage.frames)
            return passage.raw
        return b"".join(map(self._rewrite, passage.frames))

    def _see(self, frames: Sequence[ReadFrame]) -> None:
        for read in frames:
            if read.object is not None:
                self._continuity.see(read.object)
                self._role_sent = self._role_sent or _has_role(read.object)

    def _rewrite(self, read: ReadFrame) -> bytes:
        if read.object is None:
            return read.frame.raw
        wire = self._continuity.patch(read.object)
        if wire.get("choices"):
            wire["choices"] = [self._with_role(choice) for choice in wire["choices"]]
        return _event(wire)

    def _with_role(self, choice: dict[str, Any]) -> dict[str, Any]:
        """The role is said once an answer: some clients append it each time."""
        delta = {key: value for key, value in (choice.get("delta") or {}).items() if key != "role"}
        if not self._role_sent:
            self._role_sent, delta = True, {"role": "assistant", **delta}
        return {**choice, "delta": delta}

    def settle(self, turn: Turn) -> bytes:
        wire: ChatTurn = turn.wire
        for read in wire.held:
            self._continuity.see(read.object or {})
        said = b"".join(self._leftover(read) for read in wire.held)
        self._continuity.settle(turn)
        return said

    def _leftover(self, read: ReadFrame) -> bytes:
        """Text that came after the first call of a hidden turn, without its end."""
        if read.object is None or not read.object.get("choices"):
            return b""
        stripped = [_strip(choice) | {"finish_reason": None} for choice in read.object["choices"]]
        spoken = [choice for choice in stripped if _says_something(choice["delta"])]
        if not spoken:
            return b""
        if self._continuity.rounds:
            spoken = [self._with_role(choice) for choice in spoken]
        wire = self._continuity.patch({**_without_usage(read.object), "choices": spoken})
        self._role_sent = self._role_sent or _has_role(wire)
        return _event(wire)

    def release(self, turn: Turn, arguments: Sequence[str | None], notices: Mapping[int, str]) -> bytes:
        wire: ChatTurn = turn.wire
        if self._continuity.rounds == 0 and _unchanged(turn, arguments):
            return b"".join(read.frame.raw for read in wire.held)
        if not turn.slots:
            return b"".join(map(self._rewrite, wire.held))
        return b"".join(self._end(turn, _Forwarded(turn, arguments, notices)))

    def _end(self, turn: Turn, forwarded: _Forwarded) -> Iterator[bytes]:
        open_choices = sorted({slot.choice for slot in turn.slots})
        template: dict[str, Any] = {}
        for read in turn.wire.held:
            if read.object is None:
                if read.frame.data is not None:  # the end mark: nothing may be left open before it
                    yield from self._close(template, open_choices, forwarded)
                yield read.frame.raw
                continue
            wire = self._continuity.patch(read.object)
            template = template or {key: wire[key] for key in wire if key not in ("choices", "usage")}
            yield from self._end_frame(wire, template, open_choices, forwarded)
        yield from self._close(template, open_choices, forwarded)

    def _end_frame(
        self, wire: dict[str, Any], template: dict[str, Any], open_choices: list[int], forwarded: _Forwarded
    ) -> Iterator[bytes]:
        if not wire.get("choices"):
            yield _event(wire)
            return
        kept: list[dict[str, Any]] = []
        for choice in wire["choices"]:
            index = choice.get("index", 0)
            stripped = _strip(choice)
            if self._continuity.rounds:
                stripped = self._with_role(stripped)
            if choice.get("finish_reason") and forwarded.touches(index):
                if index not in open_choices:
                    continue  # a second end of the same choice
                open_choices.remove(index)
                # What the last frame says stands before the calls, what it ends after them.
                if _says_something(stripped["delta"]):
                    said = {**stripped, "finish_reason": None}
                    yield _event({**_without_usage(wire), "choices": [said]})
                yield from self._calls(template, index, forwarded)
                finish = forwarded.finish(index, choice["finish_reason"])
                kept.append({**stripped, "delta": {}, "finish_reason": finish})
            elif choice.get("finish_reason") or _says_something(stripped["delta"]):
                kept.append(stripped)
        if kept or wire.get("usage"):
            yield _event({**wire, "choices": kept})

    def _calls(self, template: dict[str, Any], index: int, forwarded: _Forwarded) -> Iterator[bytes]:
        for delta in forwarded.deltas(index):
            choice = {"index": index, "delta": delta, "finish_reason": None}
            yield _event({**template, "choices": [choice]})

    def _close(
        self, template: dict[str, Any], open_choices: list[int], forwarded: _Forwarded
    ) -> Iterator[bytes]:
        """End the choices that the provider never ended itself."""
        while open_choices:
            index = open_choices.pop(0)
            yield from self._calls(template, index, forwarded)
            choice = {"index": index, "delta": {}, "finish_reason": forwarded.finish(index, None)}
            yield _event({**template, "choices": [choice]})

    def finish(self, text: str) -> bytes:
        head = {"object": "chat.completion.chunk", **self._continuity.head}
        said = self._with_role({"index": 0, "delta": {"content": text}, "finish_reason": None})
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        frames = [_event({**head, "choices": [choice]}) for choice in (said, end)]
        if self._continuity.usage is not None:
            frames.append(_event({**head, "choices": [], "usage": self._continuity.usage}))
        return b"".join([*frames, DONE])

    def status(self, text: str) -> bytes:
        head = {"object": "chat.completion.chunk", **self._continuity.head}
        said = self._with_role({"index": 0, "delta": {"content": text}, "finish_reason": None})
        return _event({**head, "choices": [said]})

    def error(self, status: int, code: str, message: str) -> bytes:
        return b"data: " + error_body(status, code, message) + b"\n\n"


def replayed(held: Mapping[str, Any], stream: bool) -> bytes:
    """A held message as a provider would send it. Its text was already said with the question."""
    message = {**held["message"], "content": None}
    legacy = "function_call" in message
    finish = "function_call" if legacy else "tool_calls"
    head = {"id": held["id"], "created": int(time.time()), "model": held["model"]}
    if not stream:
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return dumps({**head, "object": "chat.completion", "choices": [choice]})
    deltas = [{key: value for key, value in message.items() if key not in _CALL_KEYS}]
    if legacy:
        deltas.append({"function_call": message["function_call"]})
    calls = message.get("tool_calls", [])
    deltas += [{"tool_calls": [{"index": index, **call}]} for index, call in enumerate(calls)]
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    chunk = {**head, "object": "chat.completion.chunk"}
    return b"".join([*(_event({**chunk, "choices": [choice]}) for choice in choices), DONE])


def _event(wire: dict[str, Any]) -> bytes:
    return b"data: " + dumps(wire) + b"\n\n"


def _without_usage(wire: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in wire.items() if key != "usage"}


def _strip(choice: dict[str, Any]) -> dict[str, Any]:
    delta = {key: value for key, value in (choice.get("delta") or {}).items() if key not in _CALL_KEYS}
    return {**choice, "delta": delta}


def _says_something(delta: dict[str, Any]) -> bool:
    return any(value not in (None, "", []) for value in delta.values())


def _has_role(wire: dict[str, Any]) -> bool:
    return any((choice.get("delta") or {}).get("role") for choice in wire.get("choices") or [])


class BodyEncoder:
    """Writes a whole answer; as long as nothing had to change, with the provider's own bytes."""

    def __init__(self) -> None:
        self._continuity = _Continuity()
        self._said: dict[str, list[str]] = {}

    def passage(self, passage: Passage) -> bytes:
        return passage.raw

    def settle(self, turn: Turn) -> bytes:
        wire: ChatTurn = turn.wire
        self._continuity.see(wire.body[1] if wire.body else {})
        message = wire.message()
        for key in _TEXT_FIELDS:
            if isinstance(text := message.get(key), str) and text:
                self._said.setdefault(key, []).append(text)
        self._continuity.settle(turn)
        return b""

    def release(self, turn: Turn, arguments: Sequence[str | None], notices: Mapping[int, str]) -> bytes:
        raw, wire = turn.wire.body
        if self._continuity.rounds == 0 and _unchanged(turn, arguments):
            return bytes(raw)
        forwarded = _Forwarded(turn, arguments, notices)
        choices = [self._choice(choice, forwarded) for choice in wire.get("choices") or []]
        return dumps({**self._continuity.patch(wire), "choices": choices})

    def _choice(self, choice: dict[str, Any], forwarded: _Forwarded) -> dict[str, Any]:
        index = choice.get("index", 0)
        message = dict(choice.get("message") or {})
        for key, earlier in self._said.items():
            now = message.get(key)
            if now is None or isinstance(now, str):
                message[key] = "".join([*earlier, now or ""])
        if not forwarded.touches(index):
            return {**choice, "message": message}
        message = {key: value for key, value in message.items() if key not in _CALL_KEYS}
        message |= forwarded.message_fields(index)
        if not forwarded.any(index):
            said = message.get("content")
            if said is None or isinstance(said, str):
                message["content"] = (said or "") + forwarded.notices.get(index, "")
        finish = forwarded.finish(index, choice.get("finish_reason"))
        return {**choice, "message": message, "finish_reason": finish}

    def finish(self, text: str) -> bytes:
        said = {key: "".join(pieces) for key, pieces in self._said.items()}
        message = {"role": "assistant", **said, "content": said.get("content", "") + text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        body = {"object": "chat.completion", **self._continuity.head, "choices": [choice]}
        return dumps(body | ({"usage": self._continuity.usage} if self._continuity.usage else {}))

    def status(self, text: str) -> bytes:
        return b""

    def error(self, status: int, code: str, message: str) -> bytes:
        return error_body(status, code, message)
