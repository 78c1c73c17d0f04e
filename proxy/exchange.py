"""One client request: ask the provider, judge its calls, forward / settle / finish, ask again."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter

from proxy.guards.base import Situation
from proxy.model import Event, Failure, Principal, Request, ToolResult, Turn, Usage
from proxy.pipeline import Capture, Pipeline, Ruling, principal_fields
from proxy.ports import Ask, Downstream, Headers, Reply, Sink, Store, Unavailable, Upstream, UpstreamFailed
from proxy.record import ExchangeRecord
from proxy.tools import Registry
from proxy.verdicts import Break, Effect, Refusal
from proxy.wire.codec import BadRequest, Caps, Codec, Encoder, IncompleteTurn, MalformedTurn

log = logging.getLogger("callgate.exchange")

ANSWER_NOW = (
    "No more tool calls are possible for this request. Answer the user now with what you have, "
    "and say plainly what could not be done."
)
NOTHING_TO_SAY = "I could not complete this: the tool calls that it needs are not permitted or not possible."
_MAX_QUERY_CHARS = 8192


@dataclass(frozen=True)
class Core:
    """What all exchanges share."""

    upstream: Upstream
    pipeline: Pipeline
    store: Store
    sink: Sink
    registry: Callable[[], Registry]
    caps: Caps = field(default_factory=Caps)
    max_rounds: int = 3
    settled_ttl_s: float = 86_400
    capture: Capture = "full"
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Incoming:
    """One client request as it came in."""

    raw: bytes
    path: str
    """Below the upstream's base URL, with its query string."""
    headers: Headers
    """Those that go on to the provider."""
    principal: Principal
    trace_id: str


@dataclass
class Progress:
    """What has happened so far, for the record."""

    status: int = 0
    outcome: str = "failed"
    error: str | None = None
    rounds: int = 0
    restored: int = 0
    decisions: list[str] = field(default_factory=list)
    usage: Usage | None = None
    upstream_s: float = 0.0
    judging_s: float = 0.0
    first_byte_s: float | None = None


class Exchange:
    """Serves one request; whatever happens, one record is left of it."""

    def __init__(self, core: Core, codec: Codec, incoming: Incoming, downstream: Downstream) -> None:
        self._core, self._codec, self._incoming, self._down = core, codec, incoming, downstream
        self._began = perf_counter()
        self._time = core.clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._progress = Progress()
        self._request: Request | None = None
        self._conversation = ""
        self._encoder: Encoder | None = None
        self._streaming = False
        self._head: Headers = ()
        self._said_text = False

    async def run(self) -> None:
        """Answer the client. Nothing but a cancellation is raised."""
        try:
            await self._serve()
        except BadRequest as exc:
            await self._fail(400, "invalid_request", exc.message, "refused", exc.param)
        except UpstreamFailed as exc:
            await self._fail(exc.status, exc.code, exc.message, "upstream_error")
        except MalformedTurn as exc:
            code = "upstream_incomplete" if isinstance(exc, IncompleteTurn) else "upstream_malformed"
            message = f"The provider's answer could not be used: {exc}. No tool call was released."
            await self._fail(502, code, message, "upstream_error")
        except ConnectionError:
            self._progress.outcome, self._progress.error = "cancelled", "the client went away"
        except Exception:
            log.exception("exchange %s failed", self._incoming.trace_id)
            await self._fail(500, "internal_error", "Callgate could not handle this request.", "failed")
        except BaseException:
            self._progress.outcome = "cancelled"
            raise
        finally:
            self._leave_record()

    # -- asking and judging ---------------------------------------------------------------------

    async def _serve(self) -> None:
        request = self._request = self._codec.read(self._incoming.raw)
        self._conversation = _conversation_id(self._incoming.principal, request.history.opening)
        asked = request = await self._restore(request)
        hidden: list[tuple[Turn, Sequence[ToolResult]]] = []
        finishing = False
        while True:
            turn = await self._ask(asked, finishing)
            if turn is None:
                return
            rulings = await self._judge(turn, finishing)
            effects = {ruling.effect for ruling in rulings}
            if finishing:
                return await self._release(turn, rulings, "finished")
            if effects <= {Effect.FORWARD}:
                await self._keep(hidden, turn, [])
                return await self._release(turn, rulings, "forwarded" if rulings else "answered")
            if max(request.choices, turn.choices) > 1:
                return await self._release(turn, rulings, "mixed")
            if Effect.FORWARD in effects and Effect.FINISH not in effects:
                await self._keep(hidden, turn, _results(rulings))
                return await self._release(turn, rulings, "mixed")
            results = [_settled(ruling) for ruling in rulings]
            hidden.append((turn, results))
            finishing = Effect.FINISH in effects or len(hidden) > self._core.max_rounds
            asked = self._codec.extend(asked, turn, results, relax=_refused_for_good(rulings))
            if finishing:
                asked = self._codec.forbid_tools(asked, ANSWER_NOW)
            await self._send(self._writer().settle(turn))

    async def _ask(self, request: Request, finishing: bool) -> Turn | None:
        """One round; None where the provider's answer was already passed on as it was."""
        self._progress.rounds += 1
        began = perf_counter()
        ask = Ask(self._incoming.path, request.raw, self._incoming.headers, request.model)
        try:
            async with self._core.upstream.ask(ask) as reply:
                if not 200 <= reply.status < 300:
                    await self._refused(reply, finishing)
                    return None
                return await self._read(reply)
        finally:
            self._progress.upstream_s += perf_counter() - began

    async def _read(self, reply: Reply) -> Turn | None:
        await self._begin(reply)
        decoder = self._codec.decoder(self._streaming, self._core.caps)
        async for chunk in reply.chunks():
            if not await self._pass(decoder.feed(chunk)):
                return None
            if decoder.holding:
                self._down.holding = True
            if decoder.done:
                break
        events, turn = decoder.close()
        if not await self._pass(events):
            return None
        self._take_usage(turn)
        await reply.drain()
        return turn

    async def _begin(self, reply: Reply) -> None:
        streaming = reply.media_type == "text/event-stream"
        if self._encoder is None:
            self._streaming, self._head = streaming, reply.headers
            self._encoder = self._codec.encoder(streaming)
            if streaming:
                self._progress.status = reply.status
                await self._down.begin(reply.status, reply.headers, self._codec.keepalive)
        elif streaming != self._streaming:
            raise UpstreamFailed(502, "upstream_malformed", "The provider changed between stream and body.")

    async def _pass(self, events: Sequence[Event]) -> bool:
        """Send on what needs no judging; False when the provider itself ended the answer in an error."""
        for event in events:
            if isinstance(event, Failure):
                self._progress.outcome, self._progress.error = "upstream_error", event.message
                await self._send(event.raw)
                return False
            self._said_text = self._said_text or bool(event.text)
            self._down.holding = False
            await self._send(self._writer().passage(event))
        return True

    async def _refused(self, reply: Reply, finishing: bool) -> None:
        """A status that is no answer goes on untouched, as long as nothing else was sent."""
        if finishing:
            self._progress.outcome = "finished"
            return await self._send_end(self._writer().finish("" if self._said_text else NOTHING_TO_SAY))
        if self._streaming:
            message = f"The provider answered {reply.status} when it was asked again."
            raise UpstreamFailed(502, "upstream_refused", message)
        body = b"".join([chunk async for chunk in reply.chunks()])
        self._progress.outcome, self._progress.error = "upstream_error", f"status {reply.status}"
        self._progress.status = reply.status
        await self._down.begin(reply.status, reply.headers, None)
        await self._send(body)

    async def _judge(self, turn: Turn, finishing: bool) -> list[Ruling]:
        if not turn.slots:
            return []
        assert self._request is not None
        began = perf_counter()
        situation = Situation(
            principal=self._incoming.principal,
            request=self._request,
            trace_id=self._incoming.trace_id,
            conversation_id=self._conversation,
            time=self._time,
            batch=turn.calls,
            registry=self._core.registry().get,
        )
        pipeline = self._core.pipeline
        if finishing:
            enough = Break(reasons=("Tools were turned off for the final answer.",))
            rulings = [pipeline.refuse(call, situation, enough, "rounds") for call in turn.calls]
        else:
            rulings = [await pipeline.judge(call, situation) for call in turn.calls]
        self._progress.decisions += [ruling.decision_id for ruling in rulings]
        self._progress.judging_s += perf_counter() - began
        return rulings

    # -- what the client gets -------------------------------------------------------------------

    async def _release(self, turn: Turn, rulings: Sequence[Ruling], outcome: str) -> None:
        """End the answer with the calls that may run."""
        arguments = [r.call.arguments_json if r.effect is Effect.FORWARD else None for r in rulings]
        self._said_text = self._said_text or bool(turn.text)
        self._progress.outcome = outcome
        await self._send_end(self._writer().release(turn, arguments, self._notices(turn, rulings)))

    def _notices(self, turn: Turn, rulings: Sequence[Ruling]) -> dict[int, str]:
        """Words for the choices that are left without a call and cannot be asked again."""
        notices: dict[int, list[str]] = {}
        for slot, ruling in zip(turn.slots, rulings, strict=True):
            if ruling.effect is not Effect.FORWARD:
                notices.setdefault(slot.choice, []).extend(ruling.verdict.reasons)
        if self._progress.outcome == "finished":
            return {} if self._said_text else dict.fromkeys(notices, NOTHING_TO_SAY)
        return {choice: " ".join(dict.fromkeys(reasons)) for choice, reasons in notices.items()}

    def _writer(self) -> Encoder:
        assert self._encoder is not None, "an answer has begun"
        return self._encoder

    async def _send(self, data: bytes) -> None:
        if not data:
            return
        if self._progress.first_byte_s is None:
            self._progress.first_byte_s = perf_counter() - self._began
        await self._down.send(data)

    async def _send_end(self, data: bytes) -> None:
        self._down.holding = False
        if not self._streaming:
            self._progress.status = 200
            await self._down.begin(200, self._head, None)
        await self._send(data)

    async def _fail(
        self, status: int, code: str, message: str, outcome: str, param: str | None = None
    ) -> None:
        self._progress.outcome, self._progress.error = outcome, message
        self._down.holding = False
        try:
            if self._streaming:
                await self._send(self._writer().error(status, code, message))
            else:
                self._progress.status = status
                await self._down.begin(status, (("content-type", "application/json"),), None)
                await self._send(self._codec.error(status, code, message, param))
        except ConnectionError:
            self._progress.outcome = "cancelled"

    # -- what is kept ---------------------------------------------------------------------------

    async def _restore(self, request: Request) -> Request:
        ids = request.past_call_ids
        if not ids:
            return request
        try:
            values = await self._core.store.get_many([self._key(id) for id in ids])
        except Unavailable as exc:
            log.warning("settled calls could not be restored: %s", exc)
            return request
        kept = {id: value for id, value in zip(ids, values, strict=True) if value is not None}
        self._progress.restored = len(kept)
        return self._codec.restore(request, kept) if kept else request

    async def _keep(
        self,
        hidden: Sequence[tuple[Turn, Sequence[ToolResult]]],
        turn: Turn,
        settled: Sequence[ToolResult],
    ) -> None:
        """Keep what the client does not see of this turn under the calls that it does see."""
        if not turn.slots or not (hidden or settled):
            return
        settlement = self._codec.settlement(hidden, turn, settled)
        try:
            for id in settlement.forwarded:
                await self._core.store.put(self._key(id), settlement.kept, self._core.settled_ttl_s)
        except Unavailable as exc:
            log.warning("settled calls could not be kept; the model will not see them again: %s", exc)

    def _key(self, call_id: str) -> str:
        """A key under the principal's own name: another's call id opens nothing."""
        text = "\0".join((self._incoming.principal.key, self._conversation, call_id))
        return "settled:" + hashlib.sha256(text.encode(errors="replace")).hexdigest()

    def _take_usage(self, turn: Turn) -> None:
        if turn.usage is not None:
            self._progress.usage = (self._progress.usage or Usage()) + turn.usage

    def _leave_record(self) -> None:
        try:
            self._core.sink.write(self._record())
        except Unavailable as exc:
            log.error("exchange %s could not be recorded: %s", self._incoming.trace_id, exc)

    def _record(self) -> ExchangeRecord:
        request, progress = self._request, self._progress
        latency = {
            "total": perf_counter() - self._began,
            "upstream": progress.upstream_s,
            "judging": progress.judging_s,
        }
        if progress.first_byte_s is not None:
            latency["first_byte"] = progress.first_byte_s
        return ExchangeRecord(
            time=self._time,
            trace_id=self._incoming.trace_id,
            conversation_id=self._conversation,
            principal=principal_fields(self._incoming.principal),
            protocol=self._codec.protocol,
            model=request.model if request else "",
            stream=request.stream if request else False,
            query=_captured_query(request, self._core.capture),
            status=progress.status,
            outcome=progress.outcome,
            rounds=progress.rounds,
            calls=len(progress.decisions),
            input_tokens=progress.usage.input_tokens if progress.usage else None,
            output_tokens=progress.usage.output_tokens if progress.usage else None,
            latency_s={name: round(seconds, 6) for name, seconds in latency.items()},
            decisions=tuple(progress.decisions),
            error=progress.error,
            restored=progress.restored,
        )


def _results(rulings: Sequence[Ruling]) -> list[ToolResult]:
    return [ruling.result() for ruling in rulings if ruling.effect is Effect.SETTLE]


def _settled(ruling: Ruling) -> ToolResult:
    """A result for every call of a turn that is settled as a whole, those that might have run too."""
    if ruling.effect is Effect.FORWARD:
        skipped = Refusal(type="not_executed", reasons=("Not executed: tools were turned off.",))
        return ToolResult(ruling.call.id, skipped.content())
    return ruling.result()


def _refused_for_good(rulings: Sequence[Ruling]) -> bool:
    """Whether forcing the model to call again would only repeat what cannot pass."""
    return any(isinstance(r.verdict, Refusal) and not r.verdict.retryable for r in rulings)


def _conversation_id(principal: Principal, opening: str) -> str:
    text = f"{principal.key}\0{opening}"
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def _captured_query(request: Request | None, capture: Capture) -> str | None:
    if request is None or capture == "off":
        return None
    query = request.history.query
    if capture == "digest":
        return hashlib.sha256(query.encode(errors="replace")).hexdigest()
    return query[:_MAX_QUERY_CHARS]
