"""``/chat/completions`` as the provider stores them: listed, read back, changed, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proxy.http.stored import lists
from proxy.http.stored.conversations import metadata_only
from proxy.http.stored.query import Query
from proxy.http.stored.reading import Answer, NotGiven, Reading
from proxy.http.stored.telling import Telling
from proxy.model import dumps
from proxy.settlements import STORED
from proxy.wire.chat import stored as wire
from proxy.wire.codec import Remembered


@dataclass
class StoredCompletions:
    """The stored completions of one principal."""

    reading: Reading
    id: str = ""

    async def list(self) -> Answer:
        """``GET /chat/completions``: those that were given to this principal."""
        query = Query(self.reading.asked.query)
        return self._answered(
            await lists.page(self.reading, "/chat/completions", query.get("model") or "", query, self._shown)
        )

    async def retrieve(self) -> Answer:
        """``GET /chat/completions/{id}``: as it was given."""
        telling = await self._telling()
        return await telling.body(Query(self.reading.asked.query))

    async def update(self) -> Answer:
        """``POST /chat/completions/{id}``: the metadata of every round behind it."""
        telling = await self._telling()
        body, query = metadata_only(self.reading.asked.body), Query(self.reading.asked.query)
        last: Answer | None = None
        for _, stored in telling.rounds():
            route = f"/chat/completions/{stored}"
            last = await self.reading.fetch("POST", route, telling.known.model, query.text, body)
            if not last.is_good:
                return last
        return await telling.body(Query(""), last)

    async def delete(self) -> Answer:
        """``DELETE /chat/completions/{id}``: with every round behind it, the last one first."""
        telling = await self._telling()
        answer: Answer | None = None
        for stored in dict.fromkeys(stored for _, stored in reversed(telling.rounds())):
            route, query = f"/chat/completions/{stored}", self.reading.asked.query
            found = await self.reading.fetch("DELETE", route, telling.known.model, query)
            if not found.is_good:
                return found
            answer = answer or found
        await self.reading.settlements.forget(self.id, STORED)
        self.reading.journal.outcome = "answered"
        if answer is None:
            raise NotGiven
        told = lists.read_object(answer.body)
        return Answer(answer.status, answer.headers, dumps({**told, "id": self.id}))

    async def messages(self) -> Answer:
        """``GET /chat/completions/{id}/messages``: those that the client sent, as it sent them."""
        telling = await self._telling()
        known = telling.known

        async def show(members: Sequence[lists.Json]) -> Sequence[lists.Json | None]:
            return [wire.shown(member, known) for member in members]

        _, first = telling.rounds()[0]
        query = Query(self.reading.asked.query)
        return self._answered(
            await lists.page(self.reading, f"/chat/completions/{first}/messages", known.model, query, show)
        )

    # -------------------------------------------------------------------------------------------

    async def _shown(self, members: Sequence[lists.Json]) -> Sequence[lists.Json | None]:
        names = [str(member.get("id")) for member in members]
        kept = await self.reading.settlements.find(names, STORED)
        found: list[lists.Json | None] = []
        for member, name, value in zip(members, names, kept, strict=True):
            found.append(await self._one(member, name, wire.recall(value)) if value is not None else None)
        return found

    async def _one(self, member: lists.Json, name: str, known: Remembered) -> lists.Json | None:
        """A completion of a list as it was given; one whose rounds cannot all be read is left out."""
        telling = Telling(self.reading, wire, known, "/chat/completions")
        # As it stands in the list, where it is the whole answer.
        alone = Answer(200, (), dumps(member)) if set(known.rounds) == {name} else None
        try:
            answer = await telling.body(Query(""), alone)
        except NotGiven:
            return None
        return lists.read_object(answer.body) if answer.is_good else None

    async def _telling(self) -> Telling:
        (kept,) = await self.reading.settlements.find([self.id], STORED)
        if kept is None:
            raise NotGiven
        return Telling(self.reading, wire, wire.recall(kept), "/chat/completions")

    def _answered(self, answer: Answer) -> Answer:
        if answer.is_good:
            self.reading.journal.outcome = "answered"
        return answer


def routes(reading: Reading, rest: str) -> dict[str, Any]:
    """What serves a route below ``/chat/completions``, by method; empty for an unknown one."""
    match rest.split("/")[1:]:
        case []:
            return {"GET": StoredCompletions(reading).list}
        case [id]:
            one = StoredCompletions(reading, id)
            return {"GET": one.retrieve, "POST": one.update, "DELETE": one.delete}
        case [id, "messages"]:
            return {"GET": StoredCompletions(reading, id).messages}
        case _:
            return {}
