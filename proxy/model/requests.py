"""What a client asks: the conversation so far, the tools that it offers, who it is."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from proxy.model.lazy import lazy
from proxy.model.strict import Fault, loads
from proxy.model.value import value

_BRIEF_CHARS = 200


@value(frozen=True, slots=True)
class PastCall:
    """A call of an earlier turn, with the result that came back for it."""

    id: str
    name: str
    arguments_json: str
    result: str | None
    turn: int
    """The number of the user message that it was made for, from 1."""
    failed: bool = False
    """The application marked the result as a failure."""
    partial: bool = False
    """The result is more than its text: images, files."""

    def arguments(self) -> Any:
        """The arguments as JSON, or their text where they are none."""
        try:
            return loads(self.arguments_json or "{}")
        except Fault:
            return self.arguments_json


def brief(result: str | None) -> str | None:
    """As much of a result as tells it apart: a short one as it is, of a long one its beginning and a digest.

    What is brief already stays as it is.
    """
    if result is None or len(result) <= _BRIEF_CHARS:
        return result
    digest = hashlib.sha256(result.encode(errors="replace")).hexdigest()
    return f"{result[: _BRIEF_CHARS // 2]}… {digest}"


@value(frozen=True, slots=True)
class PastResult:
    """A tool result as it stands in a request."""

    key: str
    """The name by which the codec knows this one result: call ids may come twice."""
    call_id: str
    tool: str
    """Empty where the request does not hold the call."""
    content: str


@value(frozen=True, slots=True)
class History:
    """What is known of the conversation so far."""

    calls: tuple[PastCall, ...] = ()
    query: str = ""
    """The text of the last user message."""
    turn: int = 0
    """How many user messages there were."""
    opening: str = ""
    """The text of the first user message: with the principal, it names the conversation."""
    last_answer: str = ""
    """The text of the last assistant message."""
    fresh: frozenset[str] = frozenset()
    """Ids of the calls whose results came with this request, after the last assistant message."""

    def after(self, earlier: History) -> History:
        """This history with one that went before it."""
        later = (replace(call, turn=call.turn + earlier.turn) for call in self.calls)
        return History(
            calls=(*earlier.calls, *later),
            query=self.query or earlier.query,
            turn=self.turn + earlier.turn,
            opening=earlier.opening or self.opening,
            last_answer=self.last_answer or earlier.last_answer,
            fresh=self.fresh,
        )


@value(frozen=True, slots=True)
class OfferedTool:
    """A tool as the application offers it to the model."""

    name: str
    parameters: Any = None
    """Its JSON Schema, or None where it takes free text or says nothing."""
    description: str = ""
    kind: str = "function"
    more: Any = None
    """What else the model may read of it; told by ``redefine`` only."""


@value(frozen=True, slots=True)
class HostedTool:
    """A tool that the provider runs by itself, where no call of it can be judged."""

    type: str
    """As the API names it: ``web_search``, ``mcp``, ``code_interpreter``, ..."""
    label: str = ""
    """What tells two of a type apart: a remote server's label or URL."""
    approvable: bool = False
    """The API can make each use of it wait for an approval."""


@value(frozen=True)
class Request:
    """A client's request: a view of ``body``, the wire object, beside ``raw``, the bytes that are sent."""

    protocol: str
    raw: bytes
    body: dict[str, Any]
    model: str
    stream: bool
    choices: int
    reader: Any = field(repr=False, compare=False)
    """The codec, which knows where tools and history stand in ``body``."""
    earlier: History | None = None
    """What the provider remembers of the conversation and ``body`` does not say."""
    hidden: frozenset[str] = frozenset()
    """Names of what the provider knows of the conversation and the client does not, in the codec's words."""
    changed: Mapping[str, str] = field(default_factory=dict)
    """The arguments of calls that the client was given with others than the provider knows, by call id."""
    owned: str = ""
    """The conversation that it goes on, where that was begun through Callgate for this principal."""

    def with_body(self, body: dict[str, Any], raw: bytes, keeping: Collection[str] = ()) -> Request:
        """The request with another body. ``keeping`` names what is read in both bodies alike, and need not
        be worked out again."""
        # As ``replace`` would do it, which takes longer than all the rest.
        changed = object.__new__(Request)
        state = changed.__dict__
        state.update(self.__dict__)
        for name in _WORKED_OUT:
            if name not in keeping:
                state.pop(name, None)
        state["body"], state["raw"] = body, raw
        return changed

    @lazy
    def tools(self) -> Mapping[str, OfferedTool]:
        """The tools that the application offers, by name."""
        tools: Mapping[str, OfferedTool] = self.reader.offered_tools(self.body)
        return tools

    @lazy
    def hosted(self) -> Sequence[HostedTool]:
        """The tools in the request that the provider would run by itself."""
        hosted: Sequence[HostedTool] = self.reader.hosted_tools(self.body)
        return hosted

    @lazy
    def history(self) -> History:
        """The conversation so far, with what is known of it from elsewhere."""
        history: History = self.reader.history(self.body)
        return history.after(self.earlier) if self.earlier is not None else history

    @lazy
    def results(self) -> Sequence[PastResult]:
        """Every tool result that the request holds, in its order."""
        results: Sequence[PastResult] = self.reader.tool_results(self.body)
        return results

    @lazy
    def handles(self) -> Sequence[str]:
        """The names in this request under which something may have been kept: ids of calls or answers."""
        handles: Sequence[str] = self.reader.handles(self.body)
        return handles

    @lazy
    def continued(self) -> str:
        """The answer or the conversation, kept by the provider, that it goes on from; "" for none."""
        continued: str = self.reader.continued(self.body)
        return continued

    @lazy
    def resumable(self) -> bool:
        """Whether the client may come back for the answer before its end was read."""
        resumable: bool = self.reader.resumable(self.body)
        return resumable

    @lazy
    def scope(self) -> str:
        """What tells equal handles of one principal apart: providers reuse short ids."""
        scope: str = self.reader.scope(self)
        return scope


_WORKED_OUT = tuple(name for name, value in vars(Request).items() if isinstance(value, lazy))


@value(frozen=True, slots=True)
class Principal:
    """Who asks. ``key`` separates what is kept for one principal from what is kept for another."""

    id: str
    roles: tuple[str, ...] = ()
    tenant: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "anonymous"

    @property
    def key(self) -> str:
        return f"{self.kind}:{len(self.tenant)}:{self.tenant}:{self.id}"
