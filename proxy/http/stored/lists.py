"""Lists of what the provider stores, page by page, without what the client was not given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from proxy.http.stored.query import Query
from proxy.http.stored.reading import Answer, NotGiven, Reading
from proxy.model import Fault, dumps, loads_frame
from proxy.ports import UpstreamFailed
from proxy.wire.codec import MalformedTurn

Json = dict[str, Any]
Show = Callable[[Sequence[Json]], Awaitable[Sequence[Json | None]]]
"""What the client may see of these members of a list, each in its place; None for what it may not."""

_PAGE = 100
MAX_PAGES = 50
"""Of the provider's, behind one of the client's."""


async def page(reading: Reading, route: str, model: str, query: Query, show: Show) -> Answer:
    """One page of a list: as many as were asked for, where there are as many that the client may see.

    The provider's list is read from its beginning, so that a cursor tells nothing that the client does not
    know: one that names what it may not see is one that names nothing, and raises ``NotGiven``.
    """
    after, limit = query.page()
    kept = query.without("after", "limit")
    found: list[Json] = []
    passed, cursor = after is None, ""
    for _ in range(MAX_PAGES):
        part = f"limit={_PAGE}{cursor and '&after='}{cursor}"
        answer = await reading.fetch("GET", route, model, kept.adding(part).text)
        if not answer.is_good:
            return answer
        whole, members = _read(answer.body)
        for member, shown in zip(members, await show(members), strict=True):
            if shown is not None and passed:
                found.append(shown)
            passed = passed or (shown is not None and member.get("id") == after)
        more = whole.get("has_more") is True and bool(members)
        if len(found) > limit or not more:
            if not passed:
                raise NotGiven
            return Answer(answer.status, answer.headers, _page(whole, found[:limit], len(found) > limit))
        cursor = _cursor(members[-1])
    raise UpstreamFailed(502, "list_too_long", "The list is too long to be read: ask for a narrower one.")


def read_object(raw: bytes) -> Json:
    """An object that the provider stores; raises ``MalformedTurn``."""
    try:
        wire = loads_frame(raw)
    except Fault as exc:
        raise MalformedTurn(f"the answer is {exc}") from None
    if not isinstance(wire, dict):
        raise MalformedTurn("the answer is not an object")
    return wire


def _read(raw: bytes) -> tuple[Json, list[Json]]:
    whole = read_object(raw)
    members = whole.get("data")
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        raise MalformedTurn("the answer is no list of objects")
    return whole, members


def _cursor(member: Json) -> str:
    id = member.get("id")
    # It goes into a query.
    if not isinstance(id, str) or not id or not id.replace("_", "").replace("-", "").isalnum():
        raise MalformedTurn("a member of the list has no id")
    return id


def _page(whole: Json, members: list[Json], more: bool) -> bytes:
    return dumps(paged(members, more) | {"object": whole.get("object", "list")})


def paged(members: Sequence[Json], more: bool) -> Json:
    """A list as OpenAI writes it."""
    ids = [member.get("id") for member in members]
    ends = {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
    return {"object": "list", "data": list(members), **ends, "has_more": more}
