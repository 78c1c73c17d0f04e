"""The operators' port: liveness, readiness, metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from proxy.approvals import Approvals
from proxy.http.tickets import add_ticket_routes

Faults = Callable[[], Sequence[str]]


def admin_app(
    registry: CollectorRegistry,
    faults: Faults,
    approvals: Approvals,
    token: str | None = None,
    notes: Faults = tuple,
) -> web.Application:
    """The admin application; ``faults`` names what keeps Callgate from serving, and is empty when it can.

    ``notes`` names what is wrong all the same.
    """

    async def healthz(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(request: web.Request) -> web.Response:
        wrong = list(faults())
        body: dict[str, object] = {"status": "unavailable" if wrong else "ready", "faults": wrong}
        if remarks := list(notes()):
            body["notes"] = remarks
        return web.json_response(body, status=503 if wrong else 200)

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return web.Response(body=encode(registry), headers={"content-type": content_type})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    add_ticket_routes(app, approvals, token)
    return app
