"""Writing the one event stream that the client sees, over all rounds behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proxy.model import Passage, Turn
from proxy.wire.chat.reading import CALL_KEYS, AnyFrame, ChatTurn
from proxy.wire.chat.rewriting import Continuity, Forwarded, error_body, go_on_as_written, without_calls
from proxy.wire.writing import write_json

DONE = b"data: [DONE]\n\n"
# Of one frame alone: not for those that are written beside it.
_OWN_KEYS = {"choices", "usage", "obfuscation"}

Json = dict[str, Any]


def write_event(wire: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + write_json(wire) + b"\n\n"


class StreamEncoder:
    """Writes an event stream; as long as nothing had to change, with the provider's own bytes."""

    def __init__(self) -> None:
        self._continuity = Continuity()
        self._roles = _Roles()

    def passage(self, passage: Passage) -> bytes:
        if self._continuity.rounds:
            return b"".join(map(self._rewrite, passage.frames))
        for read in passage.frames:
            if read.is_news and (wire := read.object) is not None:
                self._continuity.see(wire)
                self._roles.see(wire)
        return passage.raw

    def _rewrite(self, read: AnyFrame) -> bytes:
        if read.object is None:
            return read.frame.raw
        wire = self._continuity.patch(read.object)
        wire["choices"] = [self._roles.apply(choice) for choice in wire.get("choices") or []]
        return write_event(wire)

    def settle(self, turn: Turn) -> bytes:
        wire: ChatTurn = turn.wire
        for read in wire.held:
            self._continuity.see(read.object or {})
        said = b"".join(self._leftover(read.object) for read in wire.held if read.object is not None)
        self._continuity.settle(turn)
        return said

    def _leftover(self, wire: Json) -> bytes:
        """Text that came after the first call of a hidden turn, without its end."""
        spoken = [
            self._roles.apply({**stripped, "finish_reason": None})
            for choice in wire.get("choices") or []
            if self._says_something(stripped := _strip(choice))
        ]
        if not spoken:
            return b""
        return write_event(self._continuity.patch({**_without_usage(wire), "choices": spoken}))

    def _says_something(self, choice: Json) -> bool:
        silent = {"role"} if self._roles.is_said(choice) else set()
        return any(value not in (None, "", []) for key, value in choice["delta"].items() if key not in silent)

    def release(self, turn: Turn, arguments: Sequence[str | None], notices: Mapping[int, str]) -> bytes:
        wire: ChatTurn = turn.wire
        if self._continuity.rounds == 0 and wire.canonical and go_on_as_written(turn, arguments):
            return b"".join(read.frame.raw for read in wire.held)
        return b"".join(self._end(wire.held, Forwarded(turn, arguments, notices))) if turn.slots else b""

    def _end(self, held: Sequence[AnyFrame], forwarded: Forwarded) -> Iterator[bytes]:
        """The held frames without their calls, and the calls that go on where their choice ends."""
        ending = _Ending(forwarded, self._roles)
        objects = [self._continuity.patch(read.object) for read in held if read.object is not None]
        ending.template = {key: value for key, value in objects[0].items() if key not in _OWN_KEYS}
        # Clients add usage up where it is said twice; the last word holds.
        usage = max((at for at, wire in enumerate(objects) if wire.get("usage")), default=-1)
        last = max(at for at, wire in enumerate(objects) if wire.get("choices"))
        for at, wire in enumerate(objects):
            if wire.get("choices"):
                yield from self._end_frame(wire if at == usage else _without_usage(wire), ending)
            if at == last:
                yield from ending.close()
            if not wire.get("choices") and (at == usage or not wire.get("usage")):
                yield write_event({**wire, "choices": []})
        yield DONE

    def _end_frame(self, wire: Json, ending: _Ending) -> Iterator[bytes]:
        kept: list[Json] = []
        for choice in wire["choices"]:
            stripped = _strip(choice)
            speaks = self._says_something(stripped)
            if not choice.get("finish_reason"):
                kept += [self._roles.apply(stripped)] if speaks else []
                continue
            if speaks:
                # What the last frame says stands before the calls, what it ends after them.
                said = self._roles.apply({**stripped, "finish_reason": None})
                yield write_event({**_without_usage(wire), "choices": [said]})
            if ending.ends(choice):
                yield from ending.calls(choice.get("index", 0))
                kept.append(ending.finish({**stripped, "delta": {}}))
        if kept or wire.get("usage"):
            yield write_event({**wire, "choices": kept})

    def finish(self, text: str) -> bytes:
        head = self._chunk_head()
        said = self._roles.apply({"index": 0, "delta": {"content": text}, "finish_reason": None})
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        frames = [write_event({**head, "choices": [choice]}) for choice in (said, end)]
        if self._continuity.usage is not None:
            frames.append(write_event({**head, "choices": [], "usage": self._continuity.usage}))
        return b"".join([*frames, DONE])

    def status(self, text: str) -> bytes:
        said = self._roles.apply({"index": 0, "delta": {"content": text}, "finish_reason": None})
        return write_event({**self._chunk_head(), "choices": [said]})

    def _chunk_head(self) -> Json:
        return {"object": "chat.completion.chunk", **self._continuity.head}

    def error(self, status: int, code: str, message: str) -> bytes:
        return b"data: " + error_body(status, code, message) + b"\n\n"


class _Roles:
    """The role is said once for each choice: some clients append it each time, others cannot do without."""

    def __init__(self) -> None:
        self._said: set[int] = set()

    def is_said(self, choice: Json) -> bool:
        return choice.get("index", 0) in self._said

    def see(self, wire: Json) -> None:
        """Take note of roles that go on with the provider's own bytes."""
        for choice in wire.get("choices") or ():
            if (delta := choice.get("delta")) and "role" in delta and delta["role"]:
                self._said.add(choice.get("index", 0))

    def apply(self, choice: Json) -> Json:
        """The choice with the role if it is the first that is said of it, and otherwise without."""
        delta = {key: value for key, value in (choice.get("delta") or {}).items() if key != "role"}
        if not self.is_said(choice):
            self._said.add(choice.get("index", 0))
            delta = {"role": "assistant", **delta}
        return {"index": choice.get("index", 0), **choice, "delta": delta}


class _Ending:
    """The end of each choice: once, after its calls, also where the provider left it out or said it twice."""

    def __init__(self, forwarded: Forwarded, roles: _Roles) -> None:
        self.template: Json = {}
        """What every frame says."""
        self._forwarded, self._roles = forwarded, roles
        self._open = forwarded.choices

    def ends(self, choice: Json) -> bool:
        """Whether this is a choice's first end."""
        index = choice.get("index", 0)
        if index in self._forwarded.choices and index not in self._open:
            return False
        self._open = [other for other in self._open if other != index]
        return True

    def calls(self, index: int) -> Iterator[bytes]:
        for delta in self._forwarded.deltas(index):
            choice = self._roles.apply({"index": index, "delta": delta, "finish_reason": None})
            yield write_event({**self.template, "choices": [choice]})

    def finish(self, choice: Json) -> Json:
        index = choice.get("index", 0)
        if index not in self._forwarded.choices:
            return choice
        return {**choice, "finish_reason": self._forwarded.finish(index, choice.get("finish_reason"))}

    def close(self) -> Iterator[bytes]:
        """End the choices that the provider never ended itself."""
        for index in self._open:
            yield from self.calls(index)
            choice = self.finish({"index": index, "delta": {}})
            yield write_event({**self.template, "choices": [choice]})


def _without_usage(wire: Json) -> Json:
    return {key: value for key, value in wire.items() if key != "usage"}


def _strip(choice: Json) -> Json:
    """The choice without its calls; token by token, log probabilities would spell them."""
    delta = choice.get("delta") or {}
    stripped = {
        "index": choice.get("index", 0),
        **choice,
        "delta": without_calls(delta),
        "finish_reason": choice.get("finish_reason") or None,
    }
    if "logprobs" in choice and any(delta.get(key) for key in CALL_KEYS):
        stripped["logprobs"] = None
    return stripped
