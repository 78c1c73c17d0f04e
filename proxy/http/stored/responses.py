"""``/responses/{id}`` and what is below: read back, resumed, cancelled, deleted, and what was put in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.http.stored import items, lists
from proxy.http.stored.query import Query
from proxy.http.stored.reading import Answer, NotGiven, Reading
from proxy.http.stored.telling import Telling
from proxy.model import dumps
from proxy.wire.codec import Remembered
from proxy.wire.responses import stored as wire

SCOPE = "responses"
"""Where the names of answers and conversations are kept, as ``ResponsesCodec.scope`` has it."""


async def recall(
    reading: Reading, name: str, read: Callable[[bytes], Remembered] = wire.recall
) -> Remembered:
    """What is known of an answer or a conversation; raises ``NotGiven``."""
    (kept,) = await reading.settlements.find([name], SCOPE)
    if kept is None:
        raise NotGiven
    return read(kept)


@dataclass
class StoredResponse:
    """One response that the provider keeps."""

    reading: Reading
    id: str

    async def read(self) -> Answer | None:
        """``GET``: as it was given; with ``stream`` from its beginning, or after an event."""
        query = Query(self.reading.asked.query)
        telling = await self._telling()
        if query.flag("stream"):
            return await telling.stream(query, query.number("starting_after", -1, -1, 2**31))
        return self._named(await telling.body(query.without("stream", "starting_after")))

    async def cancel(self) -> Answer:
        """``POST …/cancel``: of a response that is made in the background, the last round still runs."""
        telling = await self._telling()
        _, last = telling.rounds()[-1]
        query = Query(self.reading.asked.query)
        answer = await self.reading.fetch(
            "POST", f"/responses/{last}/cancel", telling.known.model, query.text
        )
        return self._named(await telling.body(query, answer))

    async def delete(self) -> Answer:
        """``DELETE``: with every round behind it, the last one first."""
        telling = await self._telling()
        settlements, known = self.reading.settlements, telling.known
        query = Query(self.reading.asked.query).text
        answer: Answer | None = None
        for stored in dict.fromkeys(stored for _, stored in reversed(telling.rounds())):
            found = await self.reading.fetch("DELETE", f"/responses/{stored}", known.model, query)
            answer = answer or found
            if not found.is_good:
                return self._named(found)
        for name in dict.fromkeys((self.id, known.rounds[0], wire.stored_id(known.rounds[0]))):
            await settlements.forget(name, SCOPE)
        self.reading.journal.outcome = "answered"
        if answer is None:
            raise NotGiven
        told = lists.read_object(answer.body)
        return Answer(answer.status, answer.headers, dumps({**told, "id": self.id}))

    async def input_items(self) -> Answer:
        """``GET …/input_items``: what the client put in; what was put back beside it is left out."""
        telling = await self._telling(wire.recall)
        known = telling.known
        _, first = telling.rounds()[0]

        async def show(members: Sequence[lists.Json]) -> Sequence[lists.Json | None]:
            return await items.shown(self.reading, known, members)

        query = Query(self.reading.asked.query)
        answer = await lists.page(self.reading, f"/responses/{first}/input_items", known.model, query, show)
        return _answered(self.reading, answer)

    async def _telling(self, read: Callable[[bytes], Remembered] = wire.recall_answer) -> Telling:
        known = await recall(self.reading, self.id, read)
        # The names of calls and conversations are kept in the same place.
        if not known.rounds or self.id not in (known.rounds[0], wire.stored_id(known.rounds[0])):
            raise NotGiven
        return Telling(self.reading, wire, known, "/responses")

    def _named(self, answer: Answer) -> Answer:
        """The object under the id that the client asked for."""
        if not answer.is_good:
            return answer
        body = lists.read_object(answer.body)
        if body.get("id") in (None, self.id):
            return answer
        return Answer(answer.status, answer.headers, dumps({**body, "id": self.id}))


def _answered(reading: Reading, answer: Answer) -> Answer:
    if answer.is_good:
        reading.journal.outcome = "answered"
    return answer


def routes(reading: Reading, id: str, rest: str) -> dict[str, Any]:
    """What serves a route below ``/responses``, by method; empty for an unknown one."""
    one = StoredResponse(reading, id)
    match rest:
        case "":
            return {"GET": one.read, "DELETE": one.delete}
        case "/cancel":
            return {"POST": one.cancel}
        case "/input_items":
            return {"GET": one.input_items}
        case _:
            return {}
