"""Writing the one Messages answer that the client sees, over all rounds behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proxy.model import Passage, Turn
from proxy.wire.messages.blocks import KEPT_REASONS, Block, ReadFrame
from proxy.wire.messages.frames import (
    STOP,
    call_block,
    error_body,
    event,
    stop_block,
    whole_block,
    whole_call,
)
from proxy.wire.messages.reading import MessagesTurn
from proxy.wire.writing import write_json

_EMPTY_USAGE = {"output_tokens": 0}


def add_usage(total: Any, more: Any) -> Any:
    """The sum of two usage objects, key by key and level by level; lists one after the other."""
    if isinstance(total, dict) and isinstance(more, dict):
        return {key: add_usage(total.get(key), more.get(key)) for key in {**total, **more}}
    if isinstance(total, list) and isinstance(more, list):
        return [*total, *more]
    if _is_number(total) and _is_number(more):
        return total + more
    return total if more is None else more


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _forwarded(turn: Turn, arguments: Sequence[str | None]) -> dict[Block, str]:
    wire: MessagesTurn = turn.wire
    return {block: text for block, text in zip(wire.calls, arguments, strict=True) if text is not None}


def _unchanged(turn: Turn, arguments: Sequence[str | None]) -> bool:
    wire: MessagesTurn = turn.wire
    return wire.canonical and all(
        slot.call.arguments_json == text for slot, text in zip(turn.slots, arguments, strict=True)
    )


def _end(said: Mapping[str, Any], turn: Turn, forwarded: bool) -> dict[str, Any]:
    """``stop_reason`` and what stands beside it, fitting what is left of the turn."""
    reason = said.get("stop_reason")
    if isinstance(reason, str) and reason in KEPT_REASONS:
        return dict(said)
    if forwarded:
        return {**said, "stop_reason": "tool_use", "stop_sequence": None}
    if not turn.slots and reason not in (None, "tool_use"):
        return dict(said)
    return {**said, "stop_reason": "end_turn", "stop_sequence": None}


class StreamEncoder:
    """Writes an event stream; as long as nothing had to change, with the provider's own bytes.

    The client's blocks are numbered from 0, whatever the messages behind them are numbered like.
    """

    def __init__(self) -> None:
        self._messages = 0
        self._rounds = 0
        self._next = 0
        self._own_words = False
        self._index: dict[Block, int | None] = {}
        self._open: Block | None = None
        self._sealed: set[str] = set()
        """Signatures of the thinking that the client has."""
        self._usage: dict[str, Any] | None = None

    def passage(self, passage: Passage) -> bytes:
        return b"".join(map(self._write, passage.frames))

    def _write(self, read: ReadFrame, block: Block | None = None) -> bytes:
        """One frame as the client gets it: its own bytes wherever they can stand.

        ``block``: the one that it was held with.
        """
        wire = read.wire
        if wire is None:
            return read.frame.raw
        if wire.get("type") == "message_start":
            return self._start(read, wire)
        block = block or read.block
        if block is None:
            return read.frame.raw
        if wire["type"] == "content_block_start":
            self._place(block)
        index = self._index.get(block)
        if index is None:
            return b""
        self._see(block, wire)
        return read.frame.raw if wire["index"] == index else event({**wire, "index": index})

    def _start(self, read: ReadFrame, wire: dict[str, Any]) -> bytes:
        """The answer begins once: clients refuse a second beginning."""
        self._messages += 1
        if self._messages > 1:
            return b""
        message = wire.get("message") or {}
        if not message.get("content"):
            return read.frame.raw
        return event({**wire, "message": {**message, "content": []}})

    def _place(self, block: Block) -> None:
        """Number a block; thinking that the client already has is not said again."""
        seal = block.start.get("signature") or block.start.get("data")
        if isinstance(seal, str) and seal and seal in self._sealed:
            self._index[block] = None
            return
        self._index[block] = self._next
        self._next += 1

    def _see(self, block: Block, wire: dict[str, Any]) -> None:
        self._open = None if wire["type"] == "content_block_stop" else block
        part = wire.get("delta") or wire.get("content_block") or {}
        seal = part.get("signature") or part.get("data") if isinstance(part, dict) else None
        if isinstance(seal, str) and seal:
            self._sealed.add(seal)

    # -- turns ----------------------------------------------------------------------------------

    def settle(self, turn: Turn) -> bytes:
        said = b"".join(self._items(turn.wire, {}))
        self._take(turn)
        self._rounds += 1
        return said

    def _take(self, turn: Turn) -> None:
        usage = turn.wire.usage
        self._usage = add_usage(self._usage, usage) if self._usage is not None else usage

    def _items(self, wire: MessagesTurn, forwarded: Mapping[Block, str]) -> Iterator[bytes]:
        """What was held, block by block, without the calls that do not go on."""
        for item in wire.items:
            if isinstance(item, ReadFrame):
                yield self._write(item)
            elif not item.is_call:
                yield from self._block(item)
            elif item in forwarded:
                yield from call_block(self._next, item, forwarded[item])
                self._next += 1

    def _block(self, block: Block) -> Iterator[bytes]:
        if not block.frames and block not in self._index:
            yield from whole_block(self._next, block.content())
            self._next += 1
            return
        for read in block.frames:
            yield self._write(read, block)
        if block.is_open and (index := self._index.get(block)) is not None:
            self._open = None
            yield stop_block(index)

    def release(self, turn: Turn, arguments: Sequence[str | None], notices: Mapping[int, str]) -> bytes:
        wire: MessagesTurn = turn.wire
        is_whole = self._rounds == 0 and self._messages <= 1 and not self._own_words
        if is_whole and _unchanged(turn, arguments):
            return wire.raw
        return b"".join(self._ending(turn, _forwarded(turn, arguments), notices.get(0, "")))

    def _ending(self, turn: Turn, forwarded: Mapping[Block, str], notice: str) -> Iterator[bytes]:
        wire: MessagesTurn = turn.wire
        yield from self._items(wire, forwarded)
        if turn.slots and not forwarded and notice:
            yield from self._say(notice)
        self._take(turn)
        delta = _end(wire.end.get("delta") or {"stop_reason": turn.finish}, turn, bool(forwarded))
        yield self._delta({**wire.end, "delta": delta})
        yield STOP

    def _say(self, text: str) -> Iterator[bytes]:
        yield from whole_block(self._next, {"type": "text", "text": text})
        self._next += 1

    def _delta(self, end: dict[str, Any]) -> bytes:
        usage = end.get("usage") if self._rounds == 0 and self._messages <= 1 else None
        return event({"type": "message_delta", **end, "usage": usage or self._counts()})

    def _counts(self) -> dict[str, Any]:
        """Tokens of all rounds: the counts at the end override those of the beginning."""
        usage = self._usage or _EMPTY_USAGE
        return {key: value for key, value in usage.items() if not isinstance(value, str)}

    def finish(self, text: str) -> bytes:
        said = b"".join(self._say(text)) if text else b""
        end = {"delta": {"stop_reason": "end_turn", "stop_sequence": None}}
        return said + self._delta(end) + STOP

    def status(self, text: str) -> bytes:
        if not self._messages:
            return b""
        if self._open is None:
            self._own_words = True
            return b"".join(self._say(text))
        if self._open.start["type"] != "text":
            return b""
        delta = {"type": "text_delta", "text": text}
        self._own_words = True
        return event({"type": "content_block_delta", "index": self._index[self._open], "delta": delta})

    def error(self, status: int, code: str, message: str) -> bytes:
        return b"event: error\ndata: " + error_body(status, code, message) + b"\n\n"


class BodyEncoder:
    """Writes a whole answer; as long as nothing had to change, with the provider's own bytes."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._said: list[dict[str, Any]] = []
        self._usage: dict[str, Any] | None = None
        self._rounds = 0

    def passage(self, passage: Passage) -> bytes:
        return passage.raw

    def settle(self, turn: Turn) -> bytes:
        wire: MessagesTurn = turn.wire
        if not self._head and wire.body is not None:
            self._head = {key: wire.body[key] for key in ("id", "model") if key in wire.body}
        self._said += self._content(wire, {})
        self._take(turn)
        self._rounds += 1
        return b""

    def _take(self, turn: Turn) -> None:
        usage = turn.wire.usage
        self._usage = add_usage(self._usage, usage) if self._usage is not None else usage

    @staticmethod
    def _content(wire: MessagesTurn, forwarded: Mapping[Block, str]) -> list[dict[str, Any]]:
        return [
            whole_call(block, forwarded[block]) if block.is_call else block.start
            for block in wire.blocks
            # An empty text would be refused when the client sends it back.
            if (block in forwarded if block.is_call else block.start.get("text") != "")
        ]

    def release(self, turn: Turn, arguments: Sequence[str | None], notices: Mapping[int, str]) -> bytes:
        wire: MessagesTurn = turn.wire
        if self._rounds == 0 and _unchanged(turn, arguments):
            return wire.raw
        forwarded = _forwarded(turn, arguments)
        content = [*self._said, *self._content(wire, forwarded)]
        if turn.slots and not forwarded and notices.get(0):
            content.append({"type": "text", "text": notices[0]})
        self._take(turn)
        end = _end(wire.body or {}, turn, bool(forwarded))
        said = {**end, **self._head, "content": content}
        return write_json(said if self._usage is None else {**said, "usage": self._usage})

    def finish(self, text: str) -> bytes:
        content = [*self._said, {"type": "text", "text": text}] if text else self._said
        message = {"type": "message", "role": "assistant", **self._head, "content": content}
        end = {"stop_reason": "end_turn", "stop_sequence": None}
        return write_json({**message, **end, "usage": self._usage or {"input_tokens": 0, **_EMPTY_USAGE}})

    def status(self, text: str) -> bytes:
        return b""

    def error(self, status: int, code: str, message: str) -> bytes:
        return error_body(status, code, message)
