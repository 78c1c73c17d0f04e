"""What event streams and bodies of the Messages API have in common when they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxy.model import Fault, Slot, Turn, Usage, has_duplicate_keys, loads, loads_frame
from proxy.model.value import value
from proxy.wire.codec import Caps, MalformedTurn, tokens
from proxy.wire.messages.blocks import (
    CALL,
    KEPT_REASONS,
    Block,
    ReadFrame,
    begin,
    has_odd_keys,
    may_hide_calls,
    read_calls,
)
from proxy.wire.writing import is_as_written

_INPUT_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_NUL = 0
_WITH_CALLS = KEPT_REASONS | {"tool_use"}


@value(frozen=True)
class MessagesTurn:
    """The wire side of a turn: what the encoder writes the rest of the answer from."""

    raw: bytes
    """What is held, or the whole body, as it came."""
    items: tuple[Block | ReadFrame, ...]
    """What the held frames come to, in the order of their beginning; the end is not among them."""
    blocks: tuple[Block, ...]
    """Every block of the answer."""
    calls: tuple[Block, ...]
    end: dict[str, Any]
    """The ``message_delta`` that ends a stream."""
    body: dict[str, Any] | None
    canonical: bool
    """Every client builds the same calls from the bytes as they came."""
    usage: dict[str, Any] | None
    container: str | None

    def content(self) -> list[dict[str, Any]]:
        """The blocks as they must be sent back; providers refuse empty texts."""
        blocks = (block.content() for block in self.blocks)
        return [block for block in blocks if block["type"] != "text" or block.get("text")]


class Reading:
    """What streams and bodies have in common."""

    def __init__(self, caps: Caps) -> None:
        self.id = self.model = ""
        self.blocks: list[Block] = []
        self.usage: dict[str, Any] | None = None
        self.finish: str | None = None
        self.container: str | None = None
        self.canonical = True
        self._max_blocks = caps.max_calls

    def begin(self, content: Any) -> Block:
        block = begin(content)
        if block.is_call and sum(known.is_call for known in self.blocks) >= self._max_blocks:
            raise MalformedTurn(f"the turn has more than {self._max_blocks} calls")
        self.blocks.append(block)
        return block

    def take_head(self, message: dict[str, Any]) -> None:
        self.id = self.id or str(message.get("id") or "")
        self.model = self.model or str(message.get("model") or "")
        self.take_end(message, message.get("usage"))

    def take_end(self, said: dict[str, Any], usage: Any) -> None:
        """Take in how the message ends; its counts are cumulative, and override earlier ones."""
        if isinstance(usage, dict):
            counted = {key: value for key, value in usage.items() if value is not None}
            self.usage = {**(self.usage or {}), **counted}
        if isinstance(reason := said.get("stop_reason"), str):
            self.finish = reason
        container = said.get("container")
        if isinstance(container, dict) and isinstance(id := container.get("id"), str):
            self.container = id

    def turn(
        self,
        raw: bytes,
        items: Sequence[Block | ReadFrame],
        end: dict[str, Any],
        body: dict[str, Any] | None,
    ) -> Turn:
        calls, told_apart = read_calls(self.id, self.blocks, self.finish)
        if calls:
            readable = told_apart and all(call.fault is None for _, call in calls)
            # Where an input stands whole in its block's start, who reads deltas alone finds none.
            begun: dict[str, Any] | None = {} if body is None else None
            plain = all(_has_plain_start(block.start, begun) for block, _ in calls)
            self.canonical = self.canonical and readable and plain and self.finish in _WITH_CALLS
        wire = MessagesTurn(
            raw=raw,
            items=tuple(items),
            blocks=tuple(self.blocks),
            calls=tuple(block for block, _ in calls),
            end=end,
            body=body,
            canonical=self.canonical,
            usage=self.usage,
            container=self.container,
        )
        return Turn(
            id=self.id,
            model=self.model,
            slots=tuple(Slot(0, position, call) for position, (_, call) in enumerate(calls)),
            text="".join(block.text for block in self.blocks),
            finish=self.finish,
            usage=_usage(self.usage),
            choices=1,
            wire=wire,
        )


def _has_plain_start(start: dict[str, Any], begun: dict[str, Any] | None) -> bool:
    input = start.get("input")
    return isinstance(input, dict) and (begun is None or input == begun)


def _usage(usage: dict[str, Any] | None) -> Usage | None:
    """Tokens that were read from or written to a cache are counted apart; they are input all the same."""
    if usage is None:
        return None
    total = sum(tokens(usage.get(key)) for key in _INPUT_COUNTS)
    return Usage(total, tokens(usage.get("output_tokens")))


def read_object(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object; one that holds a whole call is read as strictly as arguments are."""
    may_hide = may_hide_calls(data)
    try:
        wire = loads_frame(data)
        if may_hide and _holds_call(wire):
            wire = loads(data)
    except Fault as exc:
        raise MalformedTurn(f"{what} is {exc}") from None
    if not isinstance(wire, dict):
        raise MalformedTurn(f"{what} is not an object")
    # The reader takes UTF-16, and clients do not.
    if may_hide or _NUL in data:
        _check_keys(data, wire)
    return wire


def _holds_call(wire: Any) -> bool:
    if not isinstance(wire, dict):
        return False
    message = wire.get("message")
    contents = [wire.get("content"), message.get("content") if isinstance(message, dict) else None]
    blocks = [wire.get("content_block"), *(b for c in contents if isinstance(c, list) for b in c)]
    return any(isinstance(block, dict) and block.get("type") == CALL for block in blocks)


def _check_keys(data: bytes, wire: dict[str, Any]) -> None:
    """Raise ``MalformedTurn`` unless every client finds the same calls in this text."""
    as_written = is_as_written(data, wire)
    if not as_written and has_duplicate_keys(data):
        raise MalformedTurn("the answer names a key twice")
    if has_odd_keys(wire):
        raise MalformedTurn("the answer spells a key in a way that only some clients read")
    if as_written:
        return
    try:
        is_text = b"\0" not in data and bool(data.decode())
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        raise MalformedTurn("the answer is not UTF-8")
