"""The operators' side of confirmation: what waits for a person, and a person's word on it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from proxy.approvals import Approvals, Ticket, visible
from proxy.model import dumps
from proxy.ports import Unavailable

Handler = Callable[[web.Request], Awaitable[web.Response]]

_CODE = re.compile(r"[A-Z2-9]{6}")


def add_ticket_routes(app: web.Application, approvals: Approvals, token: str | None) -> None:
    """``GET /v1/tickets``, and ``POST /v1/tickets/{code}/approve`` and ``/decline``.

    With ``token``, a caller has to send it as a bearer token. A browser that acts for another site is
    refused in any case.
    """

    async def waiting(request: web.Request) -> web.Response:
        return _json({"tickets": [_shown(ticket) for ticket in await approvals.list()]})

    async def approve(request: web.Request) -> web.Response:
        return await _decide(approvals, request.match_info["code"], approve=True)

    async def decline(request: web.Request) -> web.Response:
        return await _decide(approvals, request.match_info["code"], approve=False)

    app.router.add_get("/v1/tickets", _guarded(waiting, token))
    app.router.add_post("/v1/tickets/{code}/approve", _guarded(approve, token))
    app.router.add_post("/v1/tickets/{code}/decline", _guarded(decline, token))


def _guarded(handler: Handler, token: str | None) -> Handler:
    async def guarded(request: web.Request) -> web.Response:
        if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return _error(403, "cross_site", "Another site's page may not decide here.")
        if "Origin" in request.headers and "Sec-Fetch-Site" not in request.headers:
            return _error(403, "cross_site", "Another site's page may not decide here.")
        if token is not None and not _bears(request, token):
            return _error(401, "unidentified", "Send the admin token: Authorization: Bearer ...")
        try:
            return await handler(request)
        except Unavailable:
            return _error(503, "store_unavailable", "The store that keeps the tickets cannot be reached.")

    return guarded


def _bears(request: web.Request, token: str) -> bool:
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    # Headers hold bytes, and may be no text.
    return secrets.compare_digest(given.encode(errors="surrogateescape"), token.encode())


async def _decide(approvals: Approvals, code: str, approve: bool) -> web.Response:
    code = code.upper()
    wanted = "approved" if approve else "declined"
    state = await approvals.decide(code, approve) if _CODE.fullmatch(code) else None
    if state is None:
        message = "No ticket waits under this code: it was used, it has lapsed, or it never was."
        return _error(404, "no_such_ticket", message)
    if state != wanted:
        return _error(409, "already_decided", f"The ticket was {state} before.")
    return _json({"code": code, "state": state})


def _shown(ticket: Ticket) -> dict[str, Any]:
    return {
        "code": ticket.code,
        "principal": visible(ticket.who),
        "conversation_id": ticket.conversation,
        "protocol": ticket.protocol,
        "time": ticket.time,
        "question": ticket.question,
        "calls": list(ticket.calls),
    }


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=dumps(body), content_type="application/json")


def _error(status: int, code: str, message: str) -> web.Response:
    return _json({"error": {"message": message, "type": "admin_error", "code": code}}, status)
