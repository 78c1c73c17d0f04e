"""One exchange's dealings with people: what they decided, what they are asked, and what is played back."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence

from proxy.approvals import Approvals, Decided, Ticket
from proxy.guards.base import Situation
from proxy.journal import Journal
from proxy.model import Turn
from proxy.model.value import value
from proxy.pipeline import Ruling, principal_fields
from proxy.ports import Headers, Reply, Sink, Unavailable, UpstreamFailed
from proxy.record import TicketRecord
from proxy.verdicts import Effect
from proxy.wire.codec import Caps, Codec

log = logging.getLogger("callgate.exchange")


@value(frozen=True)
class Confirming:
    """Asks, and finds out what was answered; every step leaves a record."""

    approvals: Approvals
    codec: Codec
    caps: Caps
    sink: Sink
    journal: Journal

    async def answered(self, situation: Situation) -> Decided | None:
        """What a person decided of a turn that was held for this conversation."""
        history = situation.request.history
        try:
            decided = await self.approvals.answered(
                situation.principal.key, situation.conversation_id, self.codec.protocol, history
            )
        except Unavailable as exc:
            log.error("an approval could not be looked up, so nothing is released: %s", exc)
            return None
        return self._noted(decided)

    async def ask(
        self, turn: Turn, rulings: Sequence[Ruling], situation: Situation
    ) -> tuple[Ticket, Decided | None]:
        """Keep a turn under a ticket, and wait as long as the answer may be held open for a decision.

        Raises ``UpstreamFailed`` (503) where the turn cannot be kept.
        """
        will_run = [ruling.call for ruling in rulings if ruling.effect in (Effect.HOLD, Effect.FORWARD)]
        calls = [(call, situation.registry(call.name)) for call in will_run]
        principal = situation.principal
        try:
            ticket = await self.approvals.open(
                (principal.key, principal.id),
                situation.conversation_id,
                self.codec.protocol,
                self.journal.time,
                calls,
                self.codec.hold(turn),
                {ruling.call.id: ruling.mask for ruling in rulings},
            )
            self._note(ticket, "opened", "policy")
            return ticket, self._noted(await self.approvals.wait(ticket))
        except Unavailable as exc:
            message = "A call needs confirmation, and it cannot be kept for now."
            raise UpstreamFailed(503, "store_unavailable", message) from exc

    def approve(self, situation: Situation, decided: Decided) -> None:
        """From here on the situation's calls are judged with this approval as a fact."""
        ticket = decided.ticket
        situation.approve(ticket.approval(decided.by, self.journal.time), ticket.covers())

    def replay(self, decided: Decided, stream: bool) -> Reply:
        """The held turn as if the provider had just given it: it is judged again, like any other."""
        return _Replay(self.codec.replay(decided.ticket.turn, stream), stream)

    def held_turn(self, decided: Decided) -> Turn:
        """The turn that was held."""
        decoder = self.codec.decoder(False, self.caps)
        decoder.feed(self.codec.replay(decided.ticket.turn, False))
        return decoder.close()[1]

    def _noted(self, decided: Decided | None) -> Decided | None:
        if decided is not None:
            self._note(decided.ticket, "approved" if decided.approved else "declined", decided.by)
        return decided

    def _note(self, ticket: Ticket, event: str, by: str) -> None:
        journal = self.journal
        record = TicketRecord(
            time=journal.time,
            trace_id=journal.trace_id,
            conversation_id=journal.conversation_id,
            principal=principal_fields(journal.principal),
            code=ticket.code,
            event=event,
            by=by,
            question=ticket.recorded(self.approvals.accept) if journal.capture == "full" else "",
            calls=[{"id": call["id"], "name": call["name"]} for call in ticket.calls],
        )
        try:
            self.sink.write(record)
        except Unavailable as exc:
            log.error("a step of ticket %s could not be recorded: %s", ticket.code, exc)


class _Replay:
    """A reply that is played from memory."""

    status = 200

    def __init__(self, data: bytes, stream: bool) -> None:
        self.media_type = "text/event-stream" if stream else "application/json"
        self.headers: Headers = (("content-type", self.media_type),)
        self._data = data

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._data

    async def drain(self) -> None:
        """Nothing is left."""
