"""``/conversations`` and what is below. A conversation belongs to the principal that began it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proxy.http.stored import items, lists
from proxy.http.stored.query import Query
from proxy.http.stored.reading import Answer, NotGiven, Reading
from proxy.http.stored.responses import SCOPE, recall
from proxy.model import Request, dumps
from proxy.wire.codec import BadRequest, Remembered, read_object
from proxy.wire.responses import stored as wire

# What a conversation says of itself: it holds no call.
_MEMBERS = ("id", "object", "created_at", "metadata", "deleted")


@dataclass
class Conversations:
    """The conversations of one principal."""

    reading: Reading
    id: str = ""
    item: str = ""

    async def create(self) -> Answer:
        """``POST /conversations``: with items, as a request with them as its input."""
        body, admitted = await self._admit("")
        answer = await self._fetch("POST", "/conversations", None, wire.with_items(body, admitted))
        if not answer.is_good:
            return answer
        told = lists.read_object(answer.body)
        if isinstance(id := told.get("id"), str) and id:
            settlements = self.reading.settlements
            await settlements.put(wire.begun_conversation(admitted, id), SCOPE)
        return self._told(answer, told)

    async def retrieve(self) -> Answer:
        """``GET /conversations/{id}``."""
        known = await self._known()
        return self._plain(await self._fetch("GET", self._route, known))

    async def update(self) -> Answer:
        """``POST /conversations/{id}``: its metadata, and nothing else."""
        known = await self._known()
        body = metadata_only(self.reading.asked.body)
        return self._plain(await self._fetch("POST", self._route, known, body))

    async def delete(self) -> Answer:
        """``DELETE /conversations/{id}``."""
        known = await self._known()
        answer = await self._fetch("DELETE", self._route, known)
        if answer.is_good:
            await self.reading.settlements.forget(self.id, SCOPE)
        return self._plain(answer)

    async def list_items(self) -> Answer:
        """``GET …/items``: those that the client was given, or put in."""
        known = await self._known()

        async def show(members: Sequence[lists.Json]) -> Sequence[lists.Json | None]:
            return await items.shown(self.reading, known, members)

        query = Query(self.reading.asked.query)
        answer = await lists.page(self.reading, f"{self._route}/items", known.model, query, show)
        if answer.is_good:
            self.reading.journal.outcome = "answered"
        return answer

    async def create_items(self) -> Answer:
        """``POST …/items``: judged as a request with them as its input."""
        await self._known()
        body, admitted = await self._admit(self.id)
        known = await self._known()
        answer = await self._fetch("POST", f"{self._route}/items", known, wire.with_items(body, admitted))
        if not answer.is_good:
            return answer
        settlements = self.reading.settlements
        settlement = wire.begun_conversation(admitted, self.id)
        await settlements.put(settlement, SCOPE)
        told = lists.read_object(answer.body)
        members = told.get("data")
        given = (
            [member for member in members if isinstance(member, dict)] if isinstance(members, list) else []
        )
        now = wire.recall(settlement.kept) if settlement else known
        found = await items.shown(self.reading, now, given)
        page = lists.paged([item for item in found if item is not None], False)
        return Answer(answer.status, answer.headers, dumps(page))

    async def retrieve_item(self) -> Answer:
        """``GET …/items/{id}``: one that the list would show."""
        known = await self._known()
        return await self._visible(known)

    async def delete_item(self) -> Answer:
        """``DELETE …/items/{id}``: one that the list would show."""
        known = await self._known()
        query, self.reading.asked = self.reading.asked.query, self.reading.asked.without_query()
        found = await self._visible(known)
        if not found.is_good:
            return found
        answer = await self.reading.fetch("DELETE", f"{self._route}/items/{self.item}", known.model, query)
        return self._plain(answer)

    # -------------------------------------------------------------------------------------------

    @property
    def _route(self) -> str:
        return f"/conversations/{self.id}"

    async def _known(self) -> Remembered:
        known = await recall(self.reading, self.id)
        if known.owned != self.id:
            raise NotGiven
        return known

    async def _fetch(self, method: str, route: str, known: Remembered | None, body: bytes = b"") -> Answer:
        model = known.model if known else ""
        return await self.reading.fetch(method, route, model, self.reading.asked.query, body)

    async def _visible(self, known: Remembered) -> Answer:
        answer = await self._fetch("GET", f"{self._route}/items/{self.item}", known)
        if not answer.is_good:
            return answer
        (item,) = await items.shown(self.reading, known, [lists.read_object(answer.body)])
        if item is None:
            raise NotGiven
        self.reading.journal.outcome = "answered"
        return Answer(answer.status, answer.headers, dumps(item))

    async def _admit(self, conversation: str) -> tuple[lists.Json, Request]:
        """The items as they may be sent: with what was settled put back, past the gates."""
        reading = self.reading
        body, came = wire.read_items(reading.asked.body, conversation, reading.codec)
        request, reading.journal.restored = await reading.settlements.restore(came)
        situation = reading.situation_of(request)
        if request is not came:
            situation.sent = frozenset(result.call_id for result in came.results)
        for gate in reading.core.gates:
            request = await gate.admit(request, situation)
            situation.request = request
        return body, request

    def _plain(self, answer: Answer) -> Answer:
        return self._told(answer, lists.read_object(answer.body)) if answer.is_good else answer

    def _told(self, answer: Answer, told: lists.Json) -> Answer:
        self.reading.journal.outcome = "answered"
        kept = {name: told[name] for name in _MEMBERS if name in told}
        return Answer(answer.status, answer.headers, dumps(kept))


def metadata_only(raw: bytes) -> bytes:
    """A body that changes metadata; raises ``BadRequest`` where it would change anything else."""
    body = read_object(raw)
    if others := body.keys() - {"metadata"}:
        raise BadRequest("Only metadata can be changed.", sorted(others)[0])
    return dumps(body)


def routes(reading: Reading, rest: str) -> dict[str, Any]:
    """What serves a route below ``/conversations``, by method; empty for an unknown one."""
    match rest.split("/")[1:]:
        case []:
            return {"POST": Conversations(reading).create}
        case [id]:
            one = Conversations(reading, id)
            return {"GET": one.retrieve, "POST": one.update, "DELETE": one.delete}
        case [id, "items"]:
            one = Conversations(reading, id)
            return {"GET": one.list_items, "POST": one.create_items}
        case [id, "items", item]:
            one = Conversations(reading, id, item)
            return {"GET": one.retrieve_item, "DELETE": one.delete_item}
        case _:
            return {}
