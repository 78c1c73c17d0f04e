"""Policies that are tried out: asked whatever those in force are asked, beside the request, and never obeyed.

They are evaluated in a process of their own, which is killed where it does not answer in time. Between the
request's path and that process is one bounded queue. What does not fit into it is dropped and counted; a
candidate that fails, hangs or grows costs the request what it takes to put a question into a queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from proxy.engines.evaluating.evaluator import MAX_MEMORY_BYTES, Evaluator, Overrun, Ready
from proxy.engines.regorus import encoded
from proxy.engines.sources.policyset import PolicySet
from proxy.engines.trial.differing import difference
from proxy.gates.comparing import PACKAGES, Change, Stand, compare, stand
from proxy.guards.policy import PACKAGE as CALL
from proxy.pipeline import Capture
from proxy.ports import PolicyEngine, Unavailable, asking
from proxy.record import DifferenceRecord

log = logging.getLogger("callgate.policies")

OUTCOMES = ("same", "stricter", "looser", "altered", "reworded", "failed", "dropped")
MAX_QUESTIONS, MAX_QUESTION_BYTES = 1000, 16 << 20
DRAIN_S = 2.0
"""How long a candidate may go on answering what was asked before the end."""

_NICENESS = 10  # what decides goes first
_MAX_WORDS = 20

# The pipeline denies where the policies in force cannot decide.
_UNDECIDED = Stand("deny", ("The policies in force could not decide.",))
_NO_CALLS = Stand("deny", ("No policy decides on tool calls, so none is allowed.",))
_NO_SAY = Stand("allow")


class _Undecided:
    """In place of a decision that was not made."""


@dataclass(frozen=True, slots=True)
class _Question:
    package: str
    call: Any
    """That member of the input, where the decision is about one."""
    input_json: bytes
    live: Any
    revision: str
    trace_id: str


class Shadowed:
    """The ``PolicyEngine`` port over an engine that decides, and a candidate that is told of it."""

    def __init__(self, live: PolicyEngine, candidate: Candidate) -> None:
        self._live, self._candidate = live, candidate

    @property
    def revision(self) -> str:
        return self._live.revision

    def defines(self, package: str) -> bool:
        return self._live.defines(package)

    def reads(self, package: str) -> frozenset[str] | None:
        return self._live.reads(package)

    async def decide(self, package: str, input: Mapping[str, Any]) -> Any:
        """What the live engine decides, as it decides it."""
        try:
            decision = await self._live.decide(package, input)
        except Unavailable:
            self._candidate.offer(package, input, _Undecided, self._live.revision)
            raise
        self._candidate.offer(package, input, decision, self._live.revision)
        return decision


class Candidate:
    """Takes questions at once, asks them one by one, and counts what the candidate would have decided."""

    def __init__(
        self,
        write: Callable[[DifferenceRecord], None],
        *,
        timeout_s: float = 1.0,
        max_memory_bytes: int = MAX_MEMORY_BYTES,
        max_questions: int = MAX_QUESTIONS,
        max_question_bytes: int = MAX_QUESTION_BYTES,
        capture: Capture = "full",
    ) -> None:
        """``write`` is told of differences; ``capture`` is how much of arguments records show."""
        self.outcomes: Counter[tuple[str, ...]] = Counter(
            {(package, outcome): 0 for package in PACKAGES for outcome in OUTCOMES}
        )
        """By package and outcome, how many decisions."""
        self.revision = ""
        """Of the candidate's policies; empty while none are asked."""
        self.fault: str | None = None
        """Why the last question had no answer, where it had none."""
        self._write, self._timeout_s, self._capture = write, timeout_s, capture
        self._max_memory_bytes = max_memory_bytes
        self._max_questions, self._max_question_bytes = max_questions, max_question_bytes
        self._queue: deque[_Question] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._serving: tuple[Evaluator, Ready] | None = None
        self._next: tuple[Evaluator, Ready, str] | None = None
        self._refused = False
        self._stopping = False
        self._words: set[str] = set()

    # -- on the request's path -------------------------------------------------------------------

    def offer(self, package: str, input: Mapping[str, Any], live: Any, revision: str) -> None:
        """Take a question that was decided; never waits, and never raises."""
        if package not in PACKAGES:
            return
        if self._refused:
            self._count(package, "failed")
            return
        if len(self._queue) >= self._max_questions or self._stopping:
            self._count(package, "dropped")
            return
        try:
            input_json = encoded(input).encode()
        except (Unavailable, MemoryError):
            self._count(package, "failed")
            return
        if self._queued_bytes + len(input_json) > self._max_question_bytes:
            self._count(package, "dropped")
            return
        self._queued_bytes += len(input_json)
        call = input.get("call")
        self._queue.append(_Question(package, call, input_json, live, revision, asking.get()))
        self._wake.set()

    def _count(self, package: str, outcome: str) -> None:
        self.outcomes[package, outcome] += 1

    # -- beside it -------------------------------------------------------------------------------

    async def put(self, policy_set: PolicySet) -> None:
        """Ask these policies from now on; raises ``PolicyFault`` where they cannot serve within the bounds,
        and goes on asking those that it asked before."""
        evaluator = Evaluator(max_memory_bytes=self._max_memory_bytes, niceness=_NICENESS)
        ready = await evaluator.start(policy_set)
        if self._next is not None:
            await self._next[0].close()
        self._next = (evaluator, ready, policy_set.revision)
        self._refused = False
        self._wake.set()

    def refuse(self) -> None:
        """There are no policies that could be asked: until there are, questions fail."""
        if self._serving is None and self._next is None:
            self._refused = True
            while self._queue:
                self._count(self._taken().package, "failed")

    async def run(self) -> None:
        """Ask until ``stop`` was called and nothing is left to be asked."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._change()
            while self._queue and self._serving is not None:
                await self._ask(self._taken(), *self._serving)
                await self._change()
            if self._stopping:
                return

    def stop(self) -> None:
        """Take no more questions."""
        self._stopping = True
        self._wake.set()

    async def close(self) -> None:
        """End the candidate's process; what was not asked by now is dropped, and counted."""
        while self._queue:
            self._count(self._taken().package, "dropped")
        for held in (self._serving, self._next):
            if held is not None:
                await held[0].close()
        self._serving = self._next = None

    def _taken(self) -> _Question:
        question = self._queue.popleft()
        self._queued_bytes -= len(question.input_json)
        return question

    async def _change(self) -> None:
        if self._next is None:
            return
        before, (evaluator, ready, revision) = self._serving, self._next
        self._serving, self._next = (evaluator, ready), None
        self.revision, self.fault, self._words = revision, None, set()
        if before is not None:
            await before[0].close()

    async def _ask(self, question: _Question, evaluator: Evaluator, ready: Ready) -> None:
        outcome = "dropped"
        try:
            outcome = await self._compared(question, evaluator, ready)
            self.fault = None
        except Unavailable as exc:
            self._failed(exc)
            outcome = "failed"
        except Exception:
            # Whatever the candidate makes of it, the service goes on.
            log.exception("a candidate's decision could not be compared")
            outcome = "failed"
        finally:
            self._count(question.package, outcome)

    def _failed(self, exc: Unavailable) -> None:
        words = str(exc)
        if isinstance(exc, Overrun):
            self.fault = words
        if words not in self._words and len(self._words) < _MAX_WORDS:
            self._words.add(words)
            log.warning("the candidate policies could not decide: %s", words)

    async def _compared(self, question: _Question, evaluator: Evaluator, ready: Ready) -> str:
        package, about = question.package, {"call": question.call}
        live = _live(question, about)
        if package in ready.packages:
            document = await evaluator.decide(package, question.input_json, self._timeout_s)
            candidate = stand(package, document, about)
        else:
            candidate = _NO_CALLS if package == CALL else _NO_SAY
        change = compare(live, candidate)
        if change != "same":
            self._tell(question, change, live, candidate)
        return change

    def _tell(self, question: _Question, change: Change, live: Stand, candidate: Stand) -> None:
        record = difference(
            package=question.package,
            input=orjson.loads(question.input_json),
            trace_id=question.trace_id,
            change=change,
            live=live,
            candidate=candidate,
            revision=question.revision,
            candidate_revision=self.revision,
            capture=self._capture,
        )
        self._write(record)


def _live(question: _Question, about: Mapping[str, Any]) -> Stand:
    if question.live is _Undecided:
        return _UNDECIDED
    try:
        return stand(question.package, question.live, about)
    except Unavailable:
        return _UNDECIDED
