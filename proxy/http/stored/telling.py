"""An answer that was given, told again: its rounds fetched, and put through the encoder as they first were.

The client knows an answer as one, by the id of its first round; the provider stores every round by itself.
Calls that were given are shown as they were given, calls that were hidden stay hidden, and a call of which
nothing is known yet (the answer was made in the background) is judged now. The model is not asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from proxy.http.stored.query import Query
from proxy.http.stored.reading import Answer, NotGiven, Reading, going, head_of, settled, whole
from proxy.http.stored.resuming import Resumed
from proxy.model import Event, Failure, Request, Turn
from proxy.pipeline import Ruling
from proxy.ports import UpstreamFailed
from proxy.verdicts import Effect
from proxy.wire.codec import Decoder, Encoder, Ending, Remembered


class Wire(Protocol):
    """What one API has to say of its stored answers. A module with these names is one."""

    def stored_id(self, id: str) -> str:
        """The id by which the provider knows a turn."""

    def is_ended(self, turn: Turn) -> bool:
        """Whether it has come to an end of which calls may go on."""

    def asked_body(self, turn: Turn, known: Remembered) -> dict[str, Any]:
        """A request's body that stands for the one that the turn answered."""


@dataclass
class Telling:
    """One answer that is told again."""

    reading: Reading
    wire: Wire
    known: Remembered
    routes: str
    """The route that answers are read from, as ``/responses``."""

    def rounds(self) -> list[tuple[str, str]]:
        """The turns that the client heard of: each by its id, and by that which the provider knows."""
        return [(id, self.wire.stored_id(id)) for id in self.known.rounds]

    async def body(self, query: Query, last: Answer | None = None) -> Answer:
        """The whole answer; ``last`` is the last round where it has been read already."""
        encoder = self.reading.codec.encoder(False)
        rounds = self.rounds()
        for at, (id, stored) in enumerate(rounds):
            is_last = at == len(rounds) - 1
            if not is_last and rounds[at + 1][1] == stored:
                continue  # approved while the answer was held open: it was played back as the next round
            answer = last if is_last and last is not None else await self._fetch(stored, query)
            if not answer.is_good:
                return self._named(answer, stored)
            turn = self._read(answer.body, id != stored)
            if not is_last:
                encoder.settle(turn)
                continue
            return Answer(answer.status, answer.headers, await self._end(turn, encoder))
        raise NotGiven

    async def _fetch(self, stored: str, query: Query) -> Answer:
        return await self.reading.fetch("GET", f"{self.routes}/{stored}", self.known.model, query.text)

    def _named(self, answer: Answer, stored: str) -> Answer:
        """The provider's error, told of the id that the client knows."""
        body = answer.body.replace(stored.encode(), self.known.rounds[0].encode())
        return Answer(answer.status, answer.headers, body)

    def _read(self, raw: bytes, is_held: bool) -> Turn:
        codec, caps = self.reading.codec, self.reading.core.caps
        decoder = codec.decoder(False, caps)
        decoder.feed(raw)
        turn = decoder.close()[1]
        if not is_held:
            return turn
        decoder = codec.decoder(False, caps)
        decoder.feed(codec.replay(codec.hold(turn), False))
        return decoder.close()[1]

    async def _end(self, turn: Turn, encoder: Encoder) -> bytes:
        """The end of the answer, with the calls that the client was given or may have."""
        reading, known, journal = self.reading, self.known, self.reading.journal
        situation = reading.situation(known, self.wire.asked_body(turn, known))
        journal.outcome = "answered"
        if not self.wire.is_ended(turn):
            # Nothing of a call goes on before its turn has ended.
            return encoder.release(turn, [None] * len(turn.slots), {})
        rulings = await reading.judge(turn.calls, known, situation)
        arguments = going(turn.calls, known, rulings)
        notices = dict(known.notices) or _notices(rulings)
        if turn.slots:
            journal.outcome = "forwarded" if None not in arguments else "mixed"
        if rulings:
            await self._keep(situation.request, turn, rulings, Ending(known.rounds, arguments, notices))
        if known.status:
            said = encoder.status(known.status)
            return said + encoder.release(turn, arguments, notices)
        return encoder.release(turn, arguments, notices)

    async def _keep(self, asked: Request, turn: Turn, rulings: dict[int, Ruling], ending: Ending) -> None:
        """From here on it is known what became of these calls."""
        await self.reading.settlements.keep(asked, (), turn, settled(rulings), ending)

    # -- streams --------------------------------------------------------------------------------

    async def stream(self, query: Query, after: int) -> Answer | None:
        """The events after the one of number ``after``, as the client first heard them; None once it is told.

        The provider's events are read from the first on: its numbers are not the client's where rounds lie
        behind the answer, and a call is judged as a whole.
        """
        encoder = self.reading.codec.encoder(True)
        resumed = Resumed(self.reading, after)
        rounds = self.rounds()
        for at, (id, stored) in enumerate(rounds):
            take = self._streamed if id == stored else self._played
            turn = await take(stored, query, encoder, resumed)
            if isinstance(turn, Answer):
                return self._broken_off(turn, stored, resumed)
            if turn is None:
                return None
            if at == len(rounds) - 1:
                await resumed.send(await self._end(turn, encoder))
            elif rounds[at + 1][1] != stored:
                await resumed.send(encoder.settle(turn))
        return None

    async def _played(
        self, stored: str, query: Query, encoder: Encoder, resumed: Resumed
    ) -> Turn | Answer | None:
        """A turn that was held, and is played back as a round of its own."""
        codec = self.reading.codec
        answer = await self._fetch(stored, query.without("stream", "starting_after"))
        if not answer.is_good:
            return answer
        decoder = codec.decoder(True, self.reading.core.caps)
        await resumed.begin((("content-type", "text/event-stream"),), encoder)
        held = codec.hold(self._read(answer.body, False))
        if await self._pass(decoder.feed(codec.replay(held, True)), encoder, resumed):
            return None
        return await self._close(decoder, encoder, resumed)

    async def _streamed(
        self, stored: str, query: Query, encoder: Encoder, resumed: Resumed
    ) -> Turn | Answer | None:
        """A round read as a stream: its turn, None where it ended in an error, or another answer."""
        reading = self.reading
        text = query.without("starting_after", "stream").adding("stream=true").text
        path = f"{reading.asked.base}{self.routes}/{stored}?{text}"
        send = reading.upstream.send("GET", path, reading.asked.headers, None, self.known.model or None)
        async with send as reply:
            headers = head_of(reply)
            if reply.status == 404 and not resumed.begun:
                raise NotGiven
            reading.journal.rounds += 1
            if not 200 <= reply.status < 300:
                return Answer(reply.status, headers, await whole(reply, reading.core.caps))
            if reply.media_type != "text/event-stream":
                raise UpstreamFailed(502, "upstream_malformed", "The provider did not answer with a stream.")
            decoder = reading.codec.decoder(True, reading.core.caps)
            await resumed.begin(headers, encoder)
            async for chunk in reply.chunks():
                if await self._pass(decoder.feed(chunk), encoder, resumed):
                    return None
                if decoder.holding:
                    reading.asked.downstream.holding = True
                if decoder.done:
                    break
            turn = await self._close(decoder, encoder, resumed)
            await reply.drain()
            return turn

    async def _close(self, decoder: Decoder, encoder: Encoder, resumed: Resumed) -> Turn | None:
        events, turn = decoder.close()
        return None if await self._pass(events, encoder, resumed) else turn

    async def _pass(self, events: Sequence[Event], encoder: Encoder, resumed: Resumed) -> bool:
        for event in events:
            if isinstance(event, Failure):
                journal = self.reading.journal
                journal.outcome, journal.error = "upstream_error", event.message
                await resumed.send(event.raw)
                return True
            await resumed.send(encoder.passage(event))
        return False

    def _broken_off(self, answer: Answer, stored: str, resumed: Resumed) -> Answer:
        """A round that cannot be read as a stream."""
        if not resumed.begun:
            self.reading.journal.outcome = "upstream_error"
            return self._named(answer, stored)
        message = f"The provider answered {answer.status} when the rest of the answer was read."
        raise UpstreamFailed(502, "upstream_refused", message)


def _notices(rulings: dict[int, Ruling]) -> dict[int, str]:
    """Why calls are missing, where an answer is left without any."""
    refused = [r for r in rulings.values() if r.effect is not Effect.FORWARD]
    reasons = dict.fromkeys(reason for ruling in refused for reason in ruling.verdict.reasons)
    return {0: " ".join(reasons)} if reasons else {}
