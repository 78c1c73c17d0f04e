"""The calls of one user query so far, and since when they have been coming to nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import orjson
from rapidfuzz import fuzz, process

from proxy.guards._outcomes import is_empty, is_error
from proxy.guards.base import Situation
from proxy.model import PastCall, ToolCall, brief
from proxy.tools import ToolSpec

HINT = "loop"
"""The error type by which a result that this guard wrote is known again."""

_HINT_START = f'{{"error":{{"type":"{HINT}",'
_ACKNOWLEDGEMENT_CHARS = 80
_MAX_CANONICAL_CHARS = 65_536
_COMPARED_CHARS = 1024


class Counts(TypedDict):
    """What is counted against the bounds, the call that is judged included."""

    calls: int
    """Calls for the user's query."""
    identical: int
    """Calls of this tool with these arguments since something last came of it."""
    similar: int
    """Calls of this tool with nearly these arguments since something last came of it."""
    hinted: bool
    """The model was told, and nothing has come of the tool since."""
    told_to_end: bool
    """The model was told that it has made all the calls that it may."""


@dataclass(frozen=True, slots=True)
class _Made:
    name: str
    text: str
    result: str | None
    """None where it cannot be seen, or not all of it."""
    failed: bool


class Runs:
    """Counts calls; worked out once for a turn, for all of its calls.

    Something came of a call when its result is one that its tool had not yet given for this query, or
    when the tool may write and these arguments are new: it then did something new. Failures and empty
    results are nothing. What came of a tool that may write counts for all tools (what they read may
    have changed), what came of one that only reads counts for itself.
    """

    def __init__(self, situation: Situation, max_calls: int, window: int, similarity: float) -> None:
        past = _this_query(situation)
        recent = past[-window:]
        # Of what the provider remembers of the conversation, results are known in brief.
        shorten = brief if situation.request.earlier is not None else _whole
        self._made = [_made(call, shorten) for call in recent]
        self._of_tool: dict[str, tuple[list[int], list[str]]] = {}
        for index, made in enumerate(self._made):
            places, texts = self._of_tool.setdefault(made.name, ([], []))
            places.append(index)
            texts.append(made.text[:_COMPARED_CHARS])
        self._hints = [index for index, made in enumerate(self._made) if _is_hint(made)]
        self._registry, self._similarity = situation.registry, similarity * 100
        self._calls, self._max_calls = len(past), max_calls
        self._older = len(past) - len(recent)
        # The choices of one answer are alternatives: none of them comes before another.
        self._alternatives = situation.request.choices > 1
        self._batch: dict[tuple[str, str], int] = {}
        self._judged = 0
        self._news: list[bool] | None = None
        self._first: list[bool] = []
        self._starts: dict[str, int] = {}

    def count(self, call: ToolCall) -> Counts:
        """Count a call of the turn, and note it for those that follow."""
        name, text = call.name, spelled(call.arguments_json)
        start, like = 0, self._like(name, text)
        if like:
            start = self._start(name)
            like = [index for index in like if index >= start]
        hints = self._hints
        counts = Counts(
            calls=self._calls + self._judged + 1,
            identical=1 + self._batch.get((name, text), 0) + sum([self._made[i].text == text for i in like]),
            similar=1 + len(like),
            hinted=bool(hints) and any(at >= start and self._made[at].name == name for at in hints),
            told_to_end=bool(hints) and any(at + self._older >= self._max_calls for at in hints),
        )
        if not self._alternatives:
            self._judged += 1
            self._batch[name, text] = self._batch.get((name, text), 0) + 1
        return counts

    def _like(self, name: str, text: str) -> list[int]:
        """Calls of the tool with these arguments, or nearly these."""
        if (of_tool := self._of_tool.get(name)) is None:
            return []
        places, texts = of_tool
        found = process.extract(
            text[:_COMPARED_CHARS], texts, scorer=fuzz.ratio, score_cutoff=self._similarity, limit=None
        )
        return sorted(places[position] for _, _, position in found)

    def _start(self, name: str) -> int:
        """Where the run begins: at the last call that something came of, itself included."""
        if name not in self._starts:
            self._starts[name] = self._find_start(name)
        return self._starts[name]

    def _find_start(self, name: str) -> int:
        if self._news is None:
            self._news, self._first = _novelty(self._made)
        for index in range(len(self._made) - 1, -1, -1):
            made = self._made[index]
            if (made.name == name and self._is_news(index)) or self._did_something(index):
                return index
        return 0

    def _is_news(self, index: int) -> bool:
        made = self._made[index]
        if _failed(made):
            return False
        if made.result is None:
            return True  # what cannot be seen is not held against the model
        assert self._news is not None
        return self._news[index] and not is_empty(made.result)

    def _did_something(self, index: int) -> bool:
        made = self._made[index]
        return (
            self._first[index]
            and made.result is not None
            and _may_have_written(made.result, self._registry, made.name)
            and not _failed(made)
        )


def _whole(result: str | None) -> str | None:
    return result


def _made(call: PastCall, shorten: Callable[[str | None], str | None]) -> _Made:
    result = None if call.partial else shorten(call.result)
    return _Made(call.name, spelled(call.arguments_json), result, call.failed)


def _failed(made: _Made) -> bool:
    return made.failed or (made.result is not None and is_error(made.result))


def _this_query(situation: Situation) -> list[PastCall]:
    history = situation.request.history
    return [*[call for call in history.calls if call.turn == history.turn], *situation.rounds]


def _novelty(calls: Sequence[_Made]) -> tuple[list[bool], list[bool]]:
    """For each call, whether its result is new for its tool, and whether its arguments are."""
    results: set[tuple[str, str | None]] = set()
    arguments: set[tuple[str, str]] = set()
    news, first = [], []
    for made in calls:
        result, spelling = (made.name, made.result), (made.name, made.text)
        news.append(result not in results)
        first.append(spelling not in arguments)
        results.add(result)
        arguments.add(spelling)
    return news, first


def _may_have_written(result: str, registry: Callable[[str], ToolSpec | None], name: str) -> bool:
    """Whether the tool may have changed something. Of an unregistered tool, its result has to tell: a
    short one may acknowledge that something was done; a long one, or an empty list, is what was read."""
    spec = registry(name)
    if spec is not None:
        return spec.effect != "read"
    return len(result) <= _ACKNOWLEDGEMENT_CHARS and "[]" not in result


def _is_hint(made: _Made) -> bool:
    return made.result is not None and made.result.startswith(_HINT_START)


def spelled(arguments_json: str) -> str:
    """Arguments in one spelling (keys sorted, no white space); text that is no JSON, or long, as it is."""
    if len(arguments_json) > _MAX_CANONICAL_CHARS:
        return arguments_json
    try:
        value = orjson.loads(arguments_json or "{}")
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except (ValueError, TypeError):
        return arguments_json
