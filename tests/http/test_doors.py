"""Every way to write a path leads to the same door, or to none."""

from __future__ import annotations

import re
from pathlib import Path

import openai
import orjson
import pytest

from proxy.http.doors import DOORS, Disposition, DoorTable
from tests.http.conftest import Serve
from tests.http.harness import RawAnswer, ask, http, talk

CHAT = "/v1/chat/completions"
BODY = orjson.dumps(ask())

# Other ways to write it; the provider gets the plain one.
SAME = [
    "//v1//chat//completions",
    CHAT + "/",
    CHAT + "//",
    "/chat/completions",
    "/v1/%63hat/completions",
    "/v1/chat%2Fcompletions",
    "/v1%2fchat%2fcompletions",
    "/v1/chat%252Fcompletions",
    "http://elsewhere.example/v1/chat/completions",
    CHAT + "#/../../models",
]
UNKNOWN = [
    CHAT + "/..%2f",
    CHAT + "/%2e%2e/%2e%2e/models",
    CHAT + "/../completions",
    CHAT + "/./",
    "/v1/models/../chat/completions",
    "/v1/models/%2e%2e/files/x/content",
    "/v1/models/%252e%252e/files/x/content",
    "/v1/models/x/./y",
    CHAT + ";params",
    CHAT + ";a=b/",
    CHAT + "%00",
    CHAT + "%0d%0aX-Injected:%201",
    CHAT + "%20",
    CHAT + "%3Fa",
    CHAT + "%5c",
    "/v1/chat\\completions",
    CHAT.upper(),
    "/V1/chat/completions",
    "/v1/Chat/completions",
    "/v1/v1/chat/completions",
    "/v2/chat/completions",
    "/v1chat/completions",
    "/v1/chat/completion",
    "/v1/chat/ｃompletions",
    "/v1/chat/%EF%BD%83ompletions",
    "/openai/deployments/m/extensions/chat/completions",
    "/openai/deployments/m/models",
    "/api/paas/v4/chat/completions",
    "/",
    "/v1",
    "*",
    "//elsewhere.example/v1/chat/completions",
]
QUERIES = [
    "api-version=2024-10-21",
    "a=b%26c%3Dd&e=%2B+%25",
    "x=%0d%0aX-Injected:%201%0d%0a%0d%0aGET%20/",
    "u=%C3%A9&raw=[]{}|",
    "??",
    "a#b",
]


async def _send(port: int, method: str, target: str) -> RawAnswer:
    request = http(method, "TARGET", BODY if method == "POST" else b"")
    return RawAnswer(await talk(port, request.replace(b"TARGET", target.encode(), 1)))


async def test_other_spellings_are_judged_and_sent_plainly(serve: Serve) -> None:
    callgate = await serve({"text": "Fine."})
    for target in SAME:
        assert (await _send(callgate.port, "POST", target)).status == 200, target
    assert {request.path for request in callgate.provider.requests} == {CHAT}
    assert len(await callgate.records("exchange")) == len(SAME)


async def test_what_has_another_reading_is_refused(serve: Serve) -> None:
    callgate = await serve({"text": "Fine."})
    for target in UNKNOWN:
        for method in ("POST", "GET"):
            answer = await _send(callgate.port, method, target)
            if answer.status == 400:  # no target at all
                assert answer.error["code"] == "bad_http", target
            else:
                assert (answer.status, answer.error["code"]) == (404, "route_refused"), target
                assert answer.headers["x-callgate-trace-id"]
            assert b"X-Injected" not in answer.raw.partition(b"\r\n\r\n")[0]
    assert callgate.provider.requests == []


@pytest.mark.parametrize("query", QUERIES)
async def test_a_query_goes_on_as_it_was_written(serve: Serve, query: str) -> None:
    callgate = await serve({"text": "Fine."})
    answer = await _send(callgate.port, "POST", f"{CHAT}?{query}")
    (request,) = callgate.provider.requests
    assert answer.status == 200
    assert request.path == f"{CHAT}?{query.partition('#')[0]}"
    assert request.raw == BODY
    assert "x-injected" not in request.headers


@pytest.mark.parametrize("method", ["HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"])
async def test_another_method_is_not_allowed(serve: Serve, method: str) -> None:
    callgate = await serve({"text": "Fine."})
    answer = await _send(callgate.port, method, CHAT)
    assert answer.status in (405, 400)
    if answer.status == 405:
        assert answer.headers["allow"] == "GET, POST"
        assert method == "HEAD" or answer.error["code"] == "method_not_allowed"
    assert callgate.provider.requests == []


async def test_connect_opens_no_tunnel(serve: Serve) -> None:
    callgate = await serve({"text": "Fine."})
    raw = await talk(
        callgate.port, b"CONNECT api.openai.com:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert RawAnswer(raw).status in (400, 404)


# -- the table

JUDGED = {
    "/chat/completions",
    "/chat/completions/X",
    "/chat/completions/X/messages",
    "/responses",
    "/responses/compact",
    "/responses/X",
    "/responses/X/cancel",
    "/responses/X/input_items",
    "/conversations",
    "/conversations/X",
    "/conversations/X/items",
    "/conversations/X/items/X",
}
# Routes whose answers hold no call: nothing is added to these without a look at the API.
PASSED = {
    "/models",
    "/models/X",
    "/embeddings",
    "/completions",
    "/moderations",
    "/audio/speech",
    "/audio/transcriptions",
    "/audio/translations",
    "/images/generations",
    "/images/edits",
    "/images/variations",
    "/responses/input_tokens",
}


def _routes_of_the_sdk() -> set[str]:
    """Every path that the official client can ask for, with X for what it fills in."""
    folder = Path(openai.__file__).parent / "resources"
    found: set[str] = set()
    for file in folder.rglob("*.py"):
        for path in re.findall(r'"(/[a-z_]+(?:/[^"\s]*)?)"', file.read_text()):
            found.add(re.sub(r"\{[^}]*\}", "X", path))
    return found


def test_every_route_of_the_official_client_has_its_disposition() -> None:
    routes = _routes_of_the_sdk()
    assert routes > {"/responses", "/threads/X/runs", "/vector_stores", "/files/X/content"} | JUDGED | PASSED
    table = DoorTable()
    by_disposition = {
        disposition: {path for path in routes if table.find("/v1" + path)[0].disposition is disposition}
        for disposition in Disposition
    }
    assert by_disposition[Disposition.JUDGED] == JUDGED
    assert by_disposition[Disposition.PASSED] == PASSED
    assert by_disposition[Disposition.REFUSED] == routes - JUDGED - PASSED


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.path)
async def test_each_door_does_what_it_says(door: object) -> None:
    assert isinstance(door, type(DOORS[0]))
    path = door.path.replace("/*", "/some-thing:1")
    found, sent = DoorTable().find("/v1" + path)
    assert (found, sent) == (door, path)
    assert bool(door.why) == (door.disposition is Disposition.REFUSED)
    assert bool(door.methods) != (door.disposition is Disposition.REFUSED)
    # A refusal is told in the shape of its API too.
    assert door.protocol or door.disposition is not Disposition.JUDGED


async def test_refused_routes_are_refused_whatever_the_method(serve: Serve) -> None:
    callgate = await serve({"text": "Fine."})
    refused = [door.path.replace("/*", "/x/y") for door in DOORS if door.disposition is Disposition.REFUSED]
    for path in refused:
        for method in ("GET", "POST", "DELETE"):
            answer = await _send(callgate.port, method, "/v1" + path)
            assert (answer.status, answer.error["code"]) == (404, "route_refused"), path
    assert callgate.provider.requests == []
