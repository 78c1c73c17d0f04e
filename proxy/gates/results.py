"""The results gate: what of a tool's results the model may see.

A client sends the whole conversation again with every request, as it knows it. So every result is
inspected in every request, and comes out as it came out before: what was taken out once stays out, and
the provider's prompt cache holds. What it costs is paid once for each text.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cachetools import LRUCache

from proxy.gates.deciding import Decisions, effect, texts
from proxy.gates.redaction import (
    Unreadable,
    check_pointers,
    without_named,
    without_patterns,
    without_pointers,
)
from proxy.gates.shaping import shaped, shortened, tool_error
from proxy.guards.base import Refused, Situation
from proxy.model import Fault, PastResult, Request, loads
from proxy.pipeline import principal_fields
from proxy.ports import Patterns, PolicyEngine, Sink, Unavailable
from proxy.record import ResultRecord
from proxy.tools import ResultRule, ToolSpec, tool_input

log = logging.getLogger("callgate.gates")

PACKAGE = "callgate.result"
# What a policy is shown of a result: to read more would hold up all other requests.
MAX_POLICY_CHARS = 64 * 1024
MAX_KEPT_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class ResultDecision:
    """What policy says of a result."""

    effect: str
    reasons: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    pointers: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    content: str = ""


@dataclass(frozen=True, slots=True)
class Inspected:
    """What came of a result."""

    content: str | None = None
    """What the model sees instead; None where that is the result as it is."""
    effect: str = "pass"
    reasons: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    lasting: bool = True
    """Whether it would come out the same again."""

    def then(self, text: str, content: str, effect: str, reason: str = "") -> Inspected:
        """With one more step taken; it counts only where it changed the text."""
        if content == text:
            return self
        strongest = max(self.effect, effect, key=("pass", "shorten", "redact", "replace").index)
        reasons = (*self.reasons, reason) if reason else self.reasons
        return replace(self, content=content, effect=strongest, reasons=reasons)


_PASS = Inspected()


class ResultsGate:
    """Shapes raw errors, takes out what must not be seen, asks ``data.callgate.result.decision``, shortens.

    A result that cannot be inspected is kept from the model, which is told so.
    """

    def __init__(self, engine: PolicyEngine, patterns: Patterns, sink: Sink, rule: ResultRule) -> None:
        """``rule`` is for all tools; a tool's own adds to it."""
        self._decisions = Decisions(engine, PACKAGE, read_decision)
        self._patterns, self._sink, self._rule = patterns, sink, rule
        self._known: LRUCache[Hashable, _Kept] = LRUCache(MAX_KEPT_BYTES, getsizeof=_Kept.size)

    async def admit(self, request: Request, situation: Situation) -> Request:
        """The request with the results as the model may see them; raises ``Refused``."""
        fresh = request.history.fresh if situation.sent is None else request.history.fresh & situation.sent
        contents: dict[str, str] = {}
        for result in request.results:
            inspected = await self.inspect(result, situation)
            if inspected.content is not None:
                contents[result.key] = inspected.content
            if result.call_id in fresh:
                self._record(result, inspected, situation)
        for result in _remembered(request):
            await self.inspect(result, situation)
        return _changed(request, contents) if contents else request

    async def inspect(self, result: PastResult, situation: Situation) -> Inspected:
        """One result; its labels are added to the situation's."""
        spec = situation.registry(result.tool)
        rule = combined(self._rule, spec)
        asked = self._decisions.defined
        if not (asked or rule.redact or rule.patterns or rule.pointers):
            return _shortened(_shaped(_PASS, result.content, rule), result.content, rule)
        key = self._key(result, spec, situation)
        if key is not None and (kept := self._known.get(key)) is not None:
            inspected = kept.inspected
        else:
            inspected = await self._inspect(result, spec, rule, situation)
            self._keep(key, inspected, spec)
        situation.taint(inspected.labels)
        return inspected

    def _key(self, result: PastResult, spec: ToolSpec | None, situation: Situation) -> Hashable | None:
        digest = hashlib.sha256(result.content.encode(errors="surrogatepass")).digest()
        # A description is itself as long as it lives, and what is kept keeps it alive.
        about = (digest, result.call_id, result.tool, id(spec))
        return self._decisions.key(situation, about) if self._decisions.defined else about[:1] + about[3:]

    def _keep(self, key: Hashable | None, inspected: Inspected, spec: ToolSpec | None) -> None:
        kept = _Kept(inspected, spec)
        if key is not None and inspected.lasting and kept.size() <= MAX_KEPT_BYTES // 8:
            self._known[key] = kept

    async def _inspect(
        self, result: PastResult, spec: ToolSpec | None, rule: ResultRule, situation: Situation
    ) -> Inspected:
        try:
            done = self._redacted(self._in_a_sentence(result.content, rule), result.content, rule)
            if self._decisions.defined:
                done = await self._decided(done, result, spec, situation)
        except (Unavailable, Unreadable) as exc:
            log.error("a result of %s is kept from the model: %s", result.tool or "an unknown tool", exc)
            return _withheld(lasting=isinstance(exc, Unreadable))
        return _shortened(done, result.content, rule)

    def _in_a_sentence(self, text: str, rule: ResultRule) -> Inspected:
        """A raw error, shaped of what patterns leave: it is cut, and half of a secret matches no pattern."""
        done = _shaped(_PASS, text, rule)
        if done is _PASS or not (rule.redact or rule.patterns):
            return done
        return _shaped(_PASS, self._without_matches(text, rule), rule)

    def _redacted(self, done: Inspected, original: str, rule: ResultRule) -> Inspected:
        text = original if done.content is None else done.content
        left = without_pointers(text, rule.pointers)
        return done.then(text, self._without_matches(left, rule), "redact")

    def _without_matches(self, text: str, rule: ResultRule) -> str:
        left = without_named(text, rule.redact, self._patterns)
        return without_patterns(left, rule.patterns, self._patterns)

    async def _decided(
        self, done: Inspected, result: PastResult, spec: ToolSpec | None, situation: Situation
    ) -> Inspected:
        text = result.content if done.content is None else done.content
        members = {"tool": tool_input(result.tool, spec), "result": result_input(result, text)}
        decision = await self._decisions.ask(situation, members)
        left = self._obeyed(text, decision)
        found = done.then(text, left, "redact" if decision.effect in ("allow", "redact") else "replace")
        return replace(found, reasons=(*found.reasons, *decision.reasons), labels=decision.labels)

    def _obeyed(self, text: str, decision: ResultDecision) -> str:
        if decision.effect == "deny":
            reasons = " ".join(decision.reasons) or "Policy does not allow this result to be read."
            return tool_error(reasons, type="denied")
        if decision.effect == "replace":
            return decision.content
        return without_patterns(without_pointers(text, decision.pointers), decision.patterns, self._patterns)

    def _record(self, result: PastResult, inspected: Inspected, situation: Situation) -> None:
        content = result.content if inspected.content is None else inspected.content
        record = ResultRecord(
            time=situation.time,
            trace_id=situation.trace_id,
            conversation_id=situation.conversation_id,
            principal=principal_fields(situation.principal),
            call_id=result.call_id,
            tool=result.tool,
            effect=inspected.effect,
            reasons=inspected.reasons,
            labels=inspected.labels,
            bytes_before=len(result.content.encode(errors="replace")),
            bytes_after=len(content.encode(errors="replace")),
        )
        try:
            self._sink.write(record)
        except Unavailable as exc:
            log.error("the record of a result could not be kept: %s", exc)


@dataclass(frozen=True, slots=True)
class _Kept:
    inspected: Inspected
    spec: ToolSpec | None = field(repr=False)

    def size(self) -> int:
        """About how many bytes it takes."""
        return 512 + 4 * len(self.inspected.content or "")


def combined(rule: ResultRule, spec: ToolSpec | None) -> ResultRule:
    """The rule for all tools with what a tool's description adds to it."""
    own = spec.results if spec is not None else None
    if own is None:
        return rule
    return ResultRule.model_construct(
        max_bytes=own.max_bytes if own.max_bytes is not None else rule.max_bytes,
        shape_errors=own.shape_errors if own.shape_errors is not None else rule.shape_errors,
        redact=tuple(dict.fromkeys((*rule.redact, *own.redact))),
        patterns=(*rule.patterns, *own.patterns),
        pointers=(*rule.pointers, *own.pointers),
    )


def result_input(result: PastResult, text: str) -> dict[str, Any]:
    """What ``callgate.result`` is told of a result: its content as JSON, or the text where it is none."""
    truncated = len(text) > MAX_POLICY_CHARS
    return {
        "call_id": result.call_id,
        "tool": result.tool,
        "content": text[:MAX_POLICY_CHARS] if truncated else _read(text),
        "truncated": truncated,
    }


def _read(text: str) -> Any:
    try:
        return loads(text) if text.lstrip()[:1] in ("{", "[") else text
    except Fault:
        return text


def read_decision(decision: Any) -> ResultDecision:
    """A decision document; undefined is a denial. Raises ``Unavailable`` for one that has no meaning."""
    if decision is None:
        return ResultDecision("deny", ("No policy allows this result to be read.",))
    found = effect(decision, PACKAGE, ("allow", "redact", "replace", "deny"))
    pointers = check_pointers(texts(decision.get("pointers"), "pointers"))
    patterns, content = texts(decision.get("patterns"), "patterns"), decision.get("content", "")
    if found == "redact" and not (pointers or patterns):
        raise Unavailable("effect redact says neither pointers nor patterns")
    if not isinstance(content, str) or (found == "replace" and "content" not in decision):
        raise Unavailable("content is not text")
    reasons, labels = texts(decision.get("reasons"), "reasons"), texts(decision.get("labels"), "labels")
    return ResultDecision(found, reasons, labels, pointers, patterns, content)


def _shaped(done: Inspected, text: str, rule: ResultRule) -> Inspected:
    message = shaped(text) if rule.shape_errors else None
    return (
        done if message is None else done.then(text, message, "replace", "A raw error was put in a sentence.")
    )


def _shortened(done: Inspected, original: str, rule: ResultRule) -> Inspected:
    text = original if done.content is None else done.content
    if rule.max_bytes is None:
        return done
    return done.then(
        text, shortened(text, rule.max_bytes), "shorten", "It was longer than results.max_bytes."
    )


def _withheld(lasting: bool) -> Inspected:
    message = (
        "The tool ran, but its result could not be inspected, so it cannot be shown. "
        "Do not call the tool again to get it."
    )
    content = tool_error(message, type="result_withheld")
    return Inspected(content, "replace", ("It could not be inspected.",), lasting=lasting)


def _remembered(request: Request) -> Iterator[PastResult]:
    """The results that the provider remembers and the request does not hold: their labels count too."""
    calls: Sequence[Any] = request.earlier.calls if request.earlier is not None else ()
    for call in calls:
        if call.result is not None:
            yield PastResult("", call.id, call.name, call.result)


def _changed(request: Request, contents: dict[str, str]) -> Request:
    changed: Request = request.reader.with_results(request, contents)
    now = {result.key: result.content for result in changed.results}
    # Whatever the codec makes of it, what was taken out is not sent; a picture gives way to an empty one.
    if any(now.get(key) not in (content, "") for key, content in contents.items()):
        raise Refused(403, "result_not_changeable", "A tool result may not be sent as it is in this request.")
    return changed
