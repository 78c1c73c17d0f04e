"""What a turn says it must have been asked, so that a test fails where the request is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_SHOWN_CHARS = 300


@dataclass(frozen=True, slots=True)
class Seen:
    """What a request says, whichever API it speaks."""

    tool_results: Mapping[str, str]
    """Call id -> the text of the result that the request carries for it."""
    tool_choice: Any
    texts: Sequence[str]
    """The text of each message."""


class Expect(BaseModel):
    """What the request that a turn answers must hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool_results: dict[str, str] = Field(default_factory=dict)
    """Call id -> a part of its result's text."""
    tool_choice: Any = None
    """Exactly this ``tool_choice``; a written ``null`` expects that there is none."""
    messages_contain: tuple[str, ...] = ()
    """Each of these is part of some message's text."""

    def mismatches(self, seen: Seen) -> Iterator[str]:
        """Say, one by one, what was expected and what came instead; nothing where all is as expected."""
        for call_id, part in self.tool_results.items():
            result = seen.tool_results.get(call_id)
            if result is None:
                known = ", ".join(map(repr, seen.tool_results)) or "none"
                yield f"expected a result for call {call_id!r}; there are results for: {known}"
            elif part not in result:
                yield f"expected the result of call {call_id!r} to contain {part!r}; it is {_shown(result)}"
        if "tool_choice" in self.model_fields_set and seen.tool_choice != self.tool_choice:
            yield f"expected tool_choice {self.tool_choice!r}; it is {_shown(seen.tool_choice)}"
        for part in self.messages_contain:
            if not any(part in text for text in seen.texts):
                yield f"expected a message that contains {part!r}; the messages are {_shown(seen.texts)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
