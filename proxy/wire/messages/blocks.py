"""The content blocks of a Messages answer: which are calls, and how a stream builds them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.model import Fault, ToolCall, dumps, loads_frame
from proxy.wire.codec import MalformedTurn, as_dict, as_list
from proxy.wire.sse import Frame
from proxy.wire.writing import is_whole, joined

CALL = "tool_use"
_RAN = ("server_tool_use", "mcp_tool_use")
_TAKING_INPUT = frozenset({CALL, *_RAN})
# With these a client does no more than to show them or to send them back; what is a call in them has run.
_PASSIVE = frozenset(
    {"text", "thinking", "redacted_thinking", "connector_text", "container_upload", "compaction"}
) | {"fallback", "mcp_tool_listing", *_RAN}
# What a client could act on in a block that nothing is known of.
_ACTING = frozenset({"id", "name", "input", "arguments", "call", "tool"})
_TEXTS = ("text", "text_delta")
_TEXT_KINDS = ("text", "thinking")
"""Blocks whose text stands in a member of their own name."""
_APPENDED = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
# With these a turn may stand as the provider ended it, with calls or without.
KEPT_REASONS = frozenset(
    {"max_tokens", "model_context_window_exceeded", "refusal", "pause_turn", "compaction"}
)
_CUT_REASONS = frozenset({"max_tokens", "model_context_window_exceeded", "refusal"})


@dataclass(slots=True)  # not frozen: there is one a frame
class ReadFrame:
    """A frame beside its reading (None for a comment), and its block, until that holds the frame."""

    frame: Frame
    wire: dict[str, Any] | None
    block: Block | None = None

    @property
    def text(self) -> str:
        """The text that it says, as a piece of a block."""
        wire = self.wire
        if wire is None or self.block is None:
            return ""
        part = wire.get("delta") or wire.get("content_block")
        if not isinstance(part, dict) or part.get("type") not in _TEXTS:
            return ""
        text = part.get("text")
        return text if isinstance(text, str) else ""


@dataclass(eq=False)
class Block:
    """A content block while its pieces arrive; it is told from others by identity alone."""

    start: dict[str, Any]
    """The block as it began."""
    frames: list[ReadFrame] = field(default_factory=list)
    """Those that are held."""
    is_open: bool = True
    id: str = ""
    """A call's id: the provider's, or one that it was given here."""
    _pieces: dict[str, list[str]] = field(default_factory=dict)
    _fields: dict[str, Any] = field(default_factory=dict)
    _citations: list[Any] = field(default_factory=list)

    @property
    def is_call(self) -> bool:
        return bool(self.start["type"] == CALL)

    @property
    def text(self) -> str:
        """The text of a text block."""
        return str(self.content().get("text") or "") if self.start["type"] == "text" else ""

    def take(self, delta: dict[str, Any]) -> None:
        """Take in one delta; raises ``MalformedTurn`` where clients would not agree on what it belongs to."""
        kind = delta.get("type")
        takes_input = self.start["type"] in _TAKING_INPUT
        if takes_input != (kind == "input_json_delta"):
            raise MalformedTurn("a block carries a delta of another kind of block")
        if (key := _APPENDED.get(str(kind))) is not None:
            piece = delta.get(key)
            if not isinstance(piece, str):
                raise MalformedTurn(f"a {kind} carries no text")
            if (pieces := self._pieces.get(key)) is None:
                pieces = self._begin_pieces(key)
            pieces.append(piece)
        elif kind == "citations_delta":
            as_list(self.start.get("citations"), "citations")
            self._citations.append(delta.get("citation"))
        else:
            self._take_other(delta)

    def _take_other(self, delta: dict[str, Any]) -> None:
        """A signature is said once; what else is text grows, as in every delta that is known."""
        for name, value in delta.items():
            if name == "type":
                continue
            if isinstance(value, str) and name != "signature":
                (self._pieces.get(name) or self._begin_pieces(name)).append(value)
            else:
                _check_text(self.start["type"], name, value)
                self._fields[name] = value

    def _begin_pieces(self, name: str) -> list[str]:
        if not isinstance(self.start.get(name), str | None):
            raise MalformedTurn("a block began with something else than the text that goes on in it")
        pieces = self._pieces[name] = []
        return pieces

    @property
    def fragments(self) -> Sequence[str]:
        """The pieces of a call's arguments."""
        return self._pieces.get("partial_json", ())

    def content(self) -> dict[str, Any]:
        """The block as it must be sent back: what the provider signed is untouched."""
        block = dict(self.start)
        for key, pieces in self._pieces.items():
            if key != "partial_json":
                block[key] = joined([block.get(key) or "", *pieces])
        if self._citations:
            block["citations"] = [*(block.get("citations") or ()), *self._citations]
        block |= self._fields
        if self.is_call:
            call = self.call()
            # An input must be an object; the model should still see what it wrote.
            wrong = {"INVALID_JSON": joined([call.arguments_json])}
            return {**block, "id": self.id, "input": wrong if call.arguments is None else call.arguments}
        return block if block["type"] not in _RAN else {**block, "input": self._input()}

    def _input(self) -> Any:
        """What the provider ran: it alone has to understand it."""
        try:
            return loads_frame("".join(self.fragments).encode()) if any(self.fragments) else self._begun()
        except (Fault, UnicodeError):
            return self._begun()

    def _begun(self) -> Any:
        return self.start.get("input") or {}

    # -- calls ----------------------------------------------------------------------------------

    def call(self) -> ToolCall:
        """The call, read strictly. A member of a toolset is named with it: ``computer.zoom``."""
        name, toolset = self.start.get("name"), self.start.get("toolset_name")
        full = f"{toolset}.{name}" if toolset else name
        text, fault = self._arguments()
        if not isinstance(name, str) or not name or not isinstance(toolset, str | None):
            fault = fault or "The call has no name."
        call = ToolCall.parse(self.id, str(full or ""), text)
        return call if fault is None else faulted(call, fault)

    def _arguments(self) -> tuple[str, str | None]:
        """The arguments' text, and what keeps it from being read alike everywhere."""
        begun, fragments = self.start.get("input"), self.fragments
        if not any(fragments):
            return self._whole_input(begun)
        text = joined(fragments)
        if begun not in (None, {}, ""):
            return text, "The arguments are written in two ways at once."
        if not is_whole(fragments):
            return text, "The arguments are text that is not valid Unicode."
        return text, None

    def _whole_input(self, begun: Any) -> tuple[str, str | None]:
        if isinstance(begun, str):  # some servers send the text of the arguments
            return joined([begun]), None if is_whole([begun]) else "The arguments are not valid Unicode."
        return dumps({} if begun is None else begun).decode(), None

    def says_nothing(self) -> bool:
        """Whether the call came without any arguments."""
        return self.start.get("input") in (None, {}, "") and not any(self.fragments)


def begin(content: Any) -> Block:
    """A new block; raises ``MalformedTurn`` for one of unknown type with which a client could act."""
    start = as_dict(content, "a content block")
    kind = start.get("type")
    if not isinstance(kind, str) or not kind:
        raise MalformedTurn("a content block has no type")
    _check_text(kind, kind, start.get(kind))
    known = kind == CALL or kind in _PASSIVE or kind.endswith("_tool_result")
    acts = "tool_use" in kind or any(key.casefold() in _ACTING for key in start)
    if not known and acts:
        raise MalformedTurn(f"the type of a content block, {kind[:64]!r}, is not known")
    return Block(start)


def _check_text(kind: str, name: str, value: Any) -> None:
    """Raise ``MalformedTurn`` where this member of a block has to be its text, and is none."""
    if name == kind and kind in _TEXT_KINDS and not isinstance(value, str | None):
        raise MalformedTurn(f"the {kind} of a content block is not text")


def given_id(message_id: str, position: int, block: Block) -> str:
    """An id for a call that came without one."""
    text = f"{message_id}/{position}/{block.start.get('name')}"
    return "toolu_" + hashlib.sha256(text.encode(errors="replace")).hexdigest()[:24]


def faulted(call: ToolCall, fault: str) -> ToolCall:
    """The same call, marked as one that has no reading every client shares."""
    return ToolCall(call.id, call.name, call.arguments_json, None, fault, call.kind)


def read_calls(
    message_id: str, blocks: Sequence[Block], finish: str | None
) -> tuple[list[tuple[Block, ToolCall]], bool]:
    """The calls among the blocks at the clean end of the turn, and whether each is told apart by its id."""
    found: list[tuple[Block, ToolCall]] = []
    told_apart = True
    seen: set[str] = set()
    for position, block in enumerate(blocks):
        if not block.is_call:
            continue
        id = block.start.get("id")
        if isinstance(id, str) and id:
            block.id = id
        else:
            block.id, told_apart = given_id(message_id, position, block), False
        call = block.call()
        is_cut = block is blocks[-1] and finish in _CUT_REASONS
        if is_cut and (call.fault or block.says_nothing()):
            call = faulted(call, "The arguments were cut off by the output limit; write them shorter.")
        if call.id in seen:
            call, told_apart = faulted(call, "Two calls have the same id."), False
        seen.add(call.id)
        found.append((block, call))
    return found, told_apart


# Without one of these a frame cannot carry a call; "\u00" can spell any key.
_BACKSLASH = 0x5C
_CALL_WORDS = (b"tool_use", b"partial_json", b"\\u00")
_NAMES = frozenset({"type", "index", "message", "content", "content_block", "delta", "partial_json"}) | {
    "id",
    "name",
    "input",
    "toolset_name",
    "stop_reason",
}


def may_hide_calls(data: bytes) -> bool:
    """Whether some client could find a call in a text in which this reading found none."""
    lowered = data.lower()
    # This is asked of every event of every stream, so the commonest answer comes first. A byte is found many
    # times faster than text.
    if lowered.find(b"tool_use") < 0 and lowered.find(b"partial_json") < 0 and _BACKSLASH not in data:
        return False
    return any(word in lowered for word in _CALL_WORDS)


def has_odd_keys(wire: Mapping[str, Any]) -> bool:
    """Whether a key that matters is spelled in another case: some clients do not tell cases apart."""
    message = wire.get("message")
    parts = [wire, message, wire.get("content_block"), wire.get("delta")]
    for holder in (wire, message):
        content = holder.get("content") if isinstance(holder, dict) else None
        parts += content if isinstance(content, list) else []
    objects = (part for part in parts if isinstance(part, dict))
    return any(key not in _NAMES and key.casefold() in _NAMES for part in objects for key in part)
