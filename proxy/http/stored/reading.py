"""One request that reads back, or changes, what the provider stores: fetched, judged, recorded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

from proxy.core import Core, conversation_id
from proxy.delivery import as_read
from proxy.guards.base import Refused, Situation
from proxy.http.upstream import HttpUpstream
from proxy.journal import Journal
from proxy.model import Principal, Request, ToolCall, ToolResult
from proxy.pipeline import Ruling
from proxy.ports import Downstream, Headers, Reply, Unavailable, UpstreamFailed
from proxy.settlements import Settlements
from proxy.verdicts import Effect, Refusal
from proxy.wire.codec import BadRequest, Caps, Codec, MalformedTurn, Remembered

log = logging.getLogger("callgate.stored")

JSON_HEAD: Headers = (("content-type", "application/json"),)
_NOT_GIVEN = "Nothing of this id was given to you by Callgate, or it is no longer known."


class NotGiven(Exception):
    """Not given to this principal, or no longer known: the answer does not tell which."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Headers
    body: bytes

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Asked:
    """One client request below a stored route."""

    method: str
    base: str
    """What stands before the route in the path that the provider knows: ``/openai/v1`` with Azure's."""
    route: str
    query: str
    body: bytes
    headers: Headers
    principal: Principal
    trace_id: str
    downstream: Downstream

    def without_query(self) -> Asked:
        """The same request, for what has to be looked at before it is done."""
        return replace(self, query="")


@dataclass
class Reading:
    """What every stored route is read with; whatever happens, one record is left."""

    core: Core
    codec: Codec
    upstream: HttpUpstream
    asked: Asked
    journal: Journal = field(init=False)
    settlements: Settlements = field(init=False)
    told_error: Callable[[int, str, str], bytes] | None = None
    """How an error is told in the stream that has begun."""

    def __post_init__(self) -> None:
        core, asked = self.core, self.asked
        now = core.clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        protocol = self.codec.protocol
        self.journal = Journal(now, asked.trace_id, protocol, asked.principal, core.capture)
        self.journal.outcome = "refused"
        self.settlements = Settlements(core.store, self.codec, asked.principal, core.settled_ttl_s)

    async def run(self, serve: Callable[[], Awaitable[Answer | None]]) -> Answer | None:
        """The answer, or None where it was streamed; raises nothing but a cancellation."""
        answer: Answer | None = Answer(500, JSON_HEAD, b"")
        journal = self.journal
        try:
            answer = await serve()
        except NotGiven:
            answer = self.error(404, "not_found", _NOT_GIVEN)
        except BadRequest as exc:
            answer = self.error(400, "invalid_request", exc.message, exc.param)
        except Refused as exc:
            answer = self.error(exc.status, exc.code, exc.message, exc.param)
        except MalformedTurn as exc:
            message = f"What is stored could not be used: {exc}. No tool call was released."
            answer = await self._failed(502, "upstream_malformed", message)
        except UpstreamFailed as exc:
            answer = await self._failed(exc.status, exc.code, exc.message)
        except (ConnectionError, asyncio.CancelledError):
            journal.outcome, journal.error = "cancelled", "the client went away"
            raise
        except BaseException:
            journal.outcome = "failed"
            raise
        finally:
            self._leave_record(200 if answer is None else answer.status)
        return answer

    async def _failed(self, status: int, code: str, message: str) -> Answer | None:
        self.journal.outcome, self.journal.error = "upstream_error", message
        if self.told_error is None:
            return self.error(status, code, message)
        self.asked.downstream.holding = False
        await self.asked.downstream.send(self.told_error(status, code, message))
        return None

    def _leave_record(self, status: int) -> None:
        try:
            self.core.sink.write(self.journal.record(status, None))
        except Unavailable as exc:
            log.error("a record of exchange %s could not be kept: %s", self.asked.trace_id, exc)

    def error(self, status: int, code: str, message: str, param: str | None = None) -> Answer:
        """An error in the protocol's shape."""
        return Answer(status, JSON_HEAD, self.codec.error(status, code, message, param))

    # -- the provider ---------------------------------------------------------------------------

    async def fetch(self, method: str, route: str, model: str, query: str = "", body: bytes = b"") -> Answer:
        """The provider's whole answer; a 404 of its own raises ``NotGiven``, so that both look alike."""
        began = perf_counter()
        path = f"{self.asked.base}{route}{query and '?'}{query}"
        payload = body if method == "POST" else None
        async with self.upstream.send(method, path, self.asked.headers, payload, model or None) as reply:
            headers = head_of(reply)
            raw = await whole(reply, self.core.caps)
            self.journal.rounds += 1
            self.journal.upstream_s += perf_counter() - began
            if reply.status == 404:
                raise NotGiven
            if not 200 <= reply.status < 300:
                self.journal.outcome, self.journal.error = "upstream_error", f"status {reply.status}"
            return Answer(reply.status, headers, raw)

    # -- what is known --------------------------------------------------------------------------

    def situation(self, known: Remembered, body: dict[str, Any]) -> Situation:
        """What the calls of something stored have in common."""
        codec = self.codec
        request = Request(
            protocol=codec.protocol,
            raw=b"",
            body=body,
            model=known.model,
            stream=False,
            choices=1,
            reader=codec,
            earlier=known.history,
            hidden=known.names,
            changed=known.changed,
            owned=known.owned,
        )
        return self.situation_of(request)

    def situation_of(self, request: Request) -> Situation:
        """What the calls of a request have in common."""
        journal, asked = self.journal, self.asked
        journal.request = request
        journal.conversation_id = conversation_id(asked.principal, request.history.opening)
        return Situation(
            principal=asked.principal,
            request=request,
            trace_id=asked.trace_id,
            conversation_id=journal.conversation_id,
            time=journal.time,
            registry=self.core.registry().get,
            admission=journal.admission,
        )

    async def judge(
        self, calls: Sequence[ToolCall], known: Remembered, situation: Situation
    ) -> dict[int, Ruling]:
        """Rulings on those of the calls of which it is not known yet what became of them, by their place."""
        unknown = {
            place: call
            for place, call in enumerate(calls)
            if known.arguments(call) is None and not known.is_unseen(call)
        }
        if unknown:
            situation.begin_turn(tuple(calls))
        began = perf_counter()
        rulings = {place: await self.core.pipeline.judge(call, situation) for place, call in unknown.items()}
        self.journal.decisions += [ruling.decision_id for ruling in rulings.values()]
        self.journal.judging_s += perf_counter() - began
        return rulings


def head_of(reply: Reply) -> Headers:
    """The head of an answer as the client is told it.

    Raises ``UpstreamFailed`` for an answer that cannot be read as it came.
    """
    codings = [value for name, value in reply.headers if name.lower() == "content-encoding"]
    if any(coding.strip().lower() not in ("", "identity") for coding in codings):
        raise UpstreamFailed(502, "upstream_malformed", "The provider's answer is encoded, unasked.")
    return as_read(reply.headers, reply.media_type)


async def whole(reply: Reply, caps: Caps) -> bytes:
    """All of an answer; raises ``UpstreamFailed`` where it is cut, or larger than may be held."""
    raw = bytearray()
    async for chunk in reply.chunks():
        raw += chunk
        if len(raw) > caps.max_response_bytes:
            raise UpstreamFailed(502, "upstream_malformed", "What is stored is too large to be read.")
    return bytes(raw)


def going(calls: Sequence[ToolCall], known: Remembered, rulings: dict[int, Ruling]) -> list[str | None]:
    """The arguments with which each call goes on; None for one that does not."""
    found: list[str | None] = []
    for place, call in enumerate(calls):
        ruling = rulings.get(place)
        if ruling is None:
            found.append(known.arguments(call))
        else:
            forwarded = ruling.effect is Effect.FORWARD
            found.append(ruling.call.arguments_json if forwarded else None)
    return found


def settled(rulings: dict[int, Ruling]) -> list[ToolResult]:
    """What the model will be told of the calls that do not go on."""
    return [_result(ruling) for ruling in rulings.values() if ruling.effect is not Effect.FORWARD]


def _result(ruling: Ruling) -> ToolResult:
    if ruling.effect is not Effect.HOLD:
        return ruling.result()
    waiting = Refusal(type="waiting", reasons=("It waits for a person's confirmation.",))
    return ToolResult(ruling.call.id, waiting.content())
