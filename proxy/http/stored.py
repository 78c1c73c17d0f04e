"""Stored responses read back: what a client was not given it cannot fetch.

A response that rounds lie behind is known to the client by its first round's id, to the provider by its
last one's. What is fetched is judged once more, by the policies of today; calls that may not run are dropped,
and the model is not asked again. Only a response that was given to this principal can be fetched.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

from proxy.exchange import Core, conversation_id
from proxy.guards.base import Situation
from proxy.http.upstream import HttpUpstream
from proxy.journal import Journal
from proxy.model import Fault, Principal, Request, ToolResult, dumps, loads_frame
from proxy.pipeline import Ruling
from proxy.ports import Headers, Unavailable, UpstreamFailed
from proxy.settlements import Settlements
from proxy.verdicts import Effect, Refusal
from proxy.wire.codec import Codec, MalformedTurn

log = logging.getLogger("callgate.stored")

_PATH = re.compile(r"(?P<base>.*/responses)/(?P<id>[A-Za-z0-9_.-]+)(?P<rest>/cancel)?")
_METHODS = {"": ("GET", "DELETE"), "/cancel": ("POST",)}
_JSON: Headers = (("content-type", "application/json"),)
_NOT_GIVEN = "No response of this id was given to you by Callgate, or it is no longer known."
_CLOSED = (
    "only a response itself can be read back, cancelled or deleted: what was put in to make it holds calls "
    "that the application was not given"
)
_NO_STREAM = "A stored response is read back as a whole: leave out stream and starting_after."


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Headers
    body: bytes


@dataclass
class StoredResponses:
    """Answers the routes below ``/responses/``."""

    core: Core
    codec: Codec
    upstream: HttpUpstream

    async def answer(
        self, method: str, path: str, query: str, headers: Headers, principal: Principal, trace_id: str
    ) -> Answer:
        """The answer to one request; raises ``UpstreamFailed``."""
        match = _PATH.fullmatch(path)
        if match is None:
            return self._error(404, "route_refused", f"{method} {path[:200]} is refused: {_CLOSED}.")
        if method not in _METHODS[match["rest"] or ""]:
            return self._error(405, "method_not_allowed", f"{method} is not allowed on {path[:200]}.")
        if re.search(r"(?:^|&)(?:stream=(?!false)|starting_after=)", query, re.IGNORECASE):
            return self._error(400, "stream_refused", _NO_STREAM)
        reading = _Reading(self, principal, headers, trace_id)
        sent = f"{query and '?'}{query}"
        return await reading.run(method, match["base"], match["id"], f"{match['rest'] or ''}{sent}")

    def _error(self, status: int, code: str, message: str) -> Answer:
        return Answer(status, _JSON, self.codec.error(status, code, message))


@dataclass
class _Reading:
    """One response read back."""

    stored: StoredResponses
    principal: Principal
    headers: Headers
    trace_id: str
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        core = self.stored.core
        now = core.clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        protocol = self.stored.codec.protocol
        self.journal = Journal(now, self.trace_id, protocol, self.principal, core.capture)

    async def run(self, method: str, base: str, id: str, rest: str) -> Answer:
        """Fetch, judge, and leave a record."""
        answer = Answer(500, _JSON, b"")
        try:
            answer = await self._run(method, base, id, rest)
        except MalformedTurn as exc:
            message = f"The stored response could not be used: {exc}. No tool call was released."
            answer = self._error(502, "upstream_malformed", message)
            self.journal.outcome, self.journal.error = "upstream_error", message
        except UpstreamFailed as exc:
            answer = self._error(exc.status, exc.code, exc.message)
            self.journal.outcome, self.journal.error = "upstream_error", exc.message
        finally:
            try:
                self.stored.core.sink.write(self.journal.record(answer.status, None))
            except Unavailable as exc:
                log.error("a record of exchange %s could not be kept: %s", self.trace_id, exc)
        return answer

    async def _run(self, method: str, base: str, id: str, rest: str) -> Answer:
        core, codec = self.stored.core, self.stored.codec
        settlements = Settlements(core.store, codec, self.principal, core.settled_ttl_s)
        asked = Request(
            protocol=codec.protocol,
            raw=b"",
            body={"previous_response_id": id, "input": []},
            model="",
            stream=False,
            choices=1,
            reader=codec,
        )
        asked, found = await settlements.restore(asked)
        self.journal.request, self.journal.outcome = asked, "refused"
        self.journal.conversation_id = conversation_id(self.principal, asked.history.opening)
        if not found:
            return self._error(404, "response_not_found", _NOT_GIVEN)
        status, headers, raw = await self._fetch(
            method, f"{base}/{asked.body['previous_response_id']}{rest}", asked
        )
        if not 200 <= status < 300:
            self.journal.outcome = "upstream_error"
            return Answer(status, headers, raw)
        if method == "DELETE":
            self.journal.outcome = "answered"
            return Answer(status, headers, _renamed(raw, id))
        return Answer(status, headers, await self._judged(raw, id, asked, settlements))

    async def _fetch(self, method: str, path: str, asked: Request) -> tuple[int, Headers, bytes]:
        began = perf_counter()
        cap = self.stored.core.caps.max_response_bytes
        body = b"" if method == "POST" else None
        send = self.stored.upstream.send(method, path, self.headers, body, asked.model or None)
        async with send as reply:
            names = {name.lower(): value for name, value in reply.headers}
            if names.get("content-encoding", "identity") != "identity":
                raise UpstreamFailed(502, "upstream_malformed", "The provider's answer is encoded, unasked.")
            raw = bytearray()
            async for chunk in reply.chunks():
                raw += chunk
                if len(raw) > cap:
                    raise UpstreamFailed(502, "upstream_malformed", "The stored response is too large.")
            self.journal.rounds, self.journal.upstream_s = 1, perf_counter() - began
            return reply.status, reply.headers, bytes(raw)

    async def _judged(self, raw: bytes, id: str, asked: Request, settlements: Settlements) -> bytes:
        """The response with the calls that may run."""
        core, codec = self.stored.core, self.stored.codec
        decoder = codec.decoder(False, core.caps)
        decoder.feed(raw)
        _, turn = decoder.close()
        body = {"model": turn.model, "tools": _tools(turn.wire.response), "input": []}
        situation = Situation(
            principal=self.principal,
            request=replace(asked, body=body, model=turn.model),
            trace_id=self.trace_id,
            conversation_id=self.journal.conversation_id,
            time=self.journal.time,
            registry=core.registry().get,
        )
        situation.begin_turn(turn.calls)
        rulings = [await core.pipeline.judge(call, situation) for call in turn.calls]
        self.journal.decisions = [ruling.decision_id for ruling in rulings]
        settled = [_settled(ruling) for ruling in rulings if ruling.effect is not Effect.FORWARD]
        known = {call.id for call in asked.history.calls}
        if any(call.id not in known for call in turn.calls):
            # Made in the background, after the client had its id: it is given only now.
            await settlements.keep(asked, (), turn, settled)
        self.journal.outcome = _outcome(rulings)
        arguments = [r.call.arguments_json if r.effect is Effect.FORWARD else None for r in rulings]
        notices = {0: " ".join(r for ruling in rulings for r in ruling.verdict.reasons)} if settled else {}
        return _renamed(codec.encoder(False).release(turn, arguments, notices), id)

    def _error(self, status: int, code: str, message: str) -> Answer:
        return Answer(status, _JSON, self.stored.codec.error(status, code, message))


def _tools(response: dict[str, Any]) -> list[dict[str, Any]]:
    """What the response says that its request had offered."""
    tools = response.get("tools")
    return [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []


def _settled(ruling: Ruling) -> ToolResult:
    if ruling.effect is not Effect.HOLD:
        return ruling.result()
    waiting = Refusal(type="waiting", reasons=("It waits for a person's confirmation.",))
    return ToolResult(ruling.call.id, waiting.content())


def _outcome(rulings: Sequence[Ruling]) -> str:
    if not rulings:
        return "answered"
    return "forwarded" if all(ruling.effect is Effect.FORWARD for ruling in rulings) else "mixed"


def _renamed(raw: bytes, id: str) -> bytes:
    """The object under the id that the client knows it by."""
    try:
        body = loads_frame(raw)
    except Fault:
        return raw
    return dumps({**body, "id": id}) if isinstance(body, dict) and body.get("id") not in (None, id) else raw
